"""Refuses what `cloister simulate` cannot do together, and reads the recipe of a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.recipe import Recipe


def refuse_for_several(workers: int | None, single: str | None) -> None:
    """Refuses options of one run beside those of several.

    Args:
        workers: What --workers says.
        single: The name of an option that is for one run; None: none is given.

    Raises:
        UsageError: One is given.
    """
    if workers is not None:
        raise UsageError(
            "--workers: given with --sweep, --seeds or --folds, each of whose runs decides by "
            "itself; leave it out (OMP_NUM_THREADS bounds all of them)"
        )
    if single is not None:
        raise UsageError(
            f"--{single} given with --sweep, --seeds or --folds; it is for one run. The same "
            "command again continues an unfinished sweep; the twin of a sweep is --sweep "
            "privacy.enabled=true,false, whose runs without privacy have rows of their own in the "
            "comparison (--twin would add one to each run, equal for every ε)"
        )


def refuse_beside_resume(*, is_dry: bool) -> NoReturn:
    """Refuses what is given beside --resume, or that its folder is not.

    Args:
        is_dry: Whether --dry-run is given.

    Raises:
        UsageError: Always.
    """
    if is_dry:
        raise UsageError(
            "--dry-run: given with --resume; it checks a study before it begins: leave --resume out"
        )
    raise UsageError(
        "--resume: give the run's folder as --out, and nothing else; its own recipe.toml is used"
    )


def resumed_recipe(given: str, folder: Path) -> Recipe:
    """Returns the recipe of the run that is resumed.

    Args:
        given: What --out says, for messages.
        folder: The run's folder.

    Raises:
        UsageError: It is not that of a run, or a copy for reading.
        CloisterError: The run's recipe is damaged.
    """
    from cloister.recipe import read_run_recipe
    from cloister.server.run_copy import refuse_copy

    if not (folder / "recipe.toml").is_file():
        raise UsageError(f"--resume: {given} is not a run's folder: it has no recipe.toml")
    refuse_copy(folder)
    return read_run_recipe(folder / "recipe.toml")
