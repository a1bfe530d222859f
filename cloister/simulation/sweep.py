"""Runs one recipe many times: a grid of settings, each over several seeds, in one folder."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.bounds import shortened
from cloister.errors import BadFileError, UsageError
from cloister.fields import parse_assignment
from cloister.files import bad_file
from cloister.recipe import Recipe, read_recipe
from cloister.recipe.read import KINDS
from cloister.server.run_directory import RunDirectory, is_taken
from cloister.server.unused_run import clear_unused
from cloister.simulation.folds import fold_settings
from cloister.simulation.measured import is_finished
from cloister.simulation.sweep_file import SWEEP_FILE, SweepFile, read_sweep, write_sweep
from cloister.toml_text import parse_toml

# Most runs of one sweep; a larger grid is a mistake and would run for weeks.
MOST_RUNS = 1000


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: its folder's name and its recipe.

    Attributes:
        name: The folder's name.
        recipe: The recipe that it runs.
    """

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep or cross-validation, and the fields in which they differ.

    Attributes:
        swept: The fields that are swept.
        folds: Number of folds of a cross-validation; None: it is not one.
        runs: The runs in their order: all settings of one seed, then of the next, so that runs
            with the same initial values share cached states.
    """

    swept: tuple[str, ...]
    runs: tuple[Planned, ...]
    folds: int | None = None


def plan_sweep(
    recipe: Path | None, assignments: Sequence[str], sweeps: Sequence[str], seeds: int
) -> Sweep:
    """Plans a sweep's runs, and checks every recipe of it.

    Args:
        recipe: The recipe's file; None: the defaults.
        assignments: `section.key=value` each, for all runs.
        sweeps: `section.key=value,value,…` each.
        seeds: Number of seeds, counted up from the recipe's seed.

    Raises:
        UsageError: A sweep is not of that form, a field is given twice, or there are too many runs.
        RecipeError: A recipe of the grid is invalid.
    """
    axes = [axis(text, "--sweep") for text in sweeps]
    swept = tuple(field for field, _ in axes)
    if len(set(swept)) < len(swept):
        raise UsageError(f"--sweep: {swept[0]} given twice; give all of its values in one --sweep")
    if "study.seed" in swept:
        raise UsageError("--sweep study.seed: seeds cannot be swept; give --seeds N")
    if "data.fold" in swept:
        raise UsageError(
            "--sweep data.fold: the folds together cost more than each alone; give --folds K, "
            "which states the ε of all of them"
        )
    count = seeds
    for _, values in axes:
        count *= len(values)
    if count > MOST_RUNS:
        raise UsageError(f"--sweep, --seeds: {count:,} runs; at most {MOST_RUNS:,} are allowed")
    first = read_recipe(recipe, assignments).study.seed
    runs = []
    for seed in range(first, first + seeds):
        for cells in itertools.product(*(values for _, values in axes)):
            cell = [f"{field}={value}" for field, value in zip(swept, cells, strict=True)]
            made = read_recipe(recipe, [*assignments, *cell, f"study.seed={seed}"])
            runs.append(Planned(_folder_name([*cell, f"seed={seed}"]), made))
    if len({run.name for run in runs}) < len(runs):
        raise UsageError("--sweep: duplicate value; give each value once")
    return Sweep(swept, tuple(runs))


def plan_folds(recipe: Path | None, assignments: Sequence[str], folds: int) -> Sweep:
    """Plans a cross-validation's runs: each holds out another part of the records.

    Args:
        recipe: The recipe's file; None: the defaults.
        assignments: `section.key=value` each, for all runs.
        folds: Number of parts.

    Raises:
        RecipeError: A recipe is invalid.
    """
    first = read_recipe(recipe, [*assignments, f"data.fold=1/{folds}"])
    runs = []
    for part, settings in enumerate(fold_settings(first, folds), 1):
        made = read_recipe(recipe, [*assignments, *settings])
        runs.append(Planned(f"fold={part}", made))
    return Sweep((), tuple(runs), folds)


def axis(text: str, option: str) -> tuple[str, list[str]]:
    """Reads `section.key=a,b,c`: the field, and each value in the form of `--set`.

    Commas inside of quotes or brackets do not separate values: the list is read as TOML if it is
    valid TOML.

    Args:
        text: The user's text.
        option: The option that it was given to, for messages.

    Raises:
        UsageError: It is not of that form.
    """
    try:
        section, key, _ = parse_assignment(text, KINDS)
    except UsageError as error:
        raise UsageError(str(error).replace("--set", option, 1)) from None
    raw = text.partition("=")[2]
    try:
        parse_toml(f"v = [{raw}]")
        values = _split(raw)
    except tomllib.TOMLDecodeError:
        values = raw.split(",")
    values = [value.strip() for value in values]
    if not raw.strip() or not all(values):
        raise UsageError(
            f"{option} {shortened(text)[1:-1]}: values separated by commas are needed, as in "
            "privacy.epsilon=1,3,8"
        )
    return f"{section}.{key}", values


def _split(raw: str) -> list[str]:
    """Splits at commas outside of quotes and brackets."""
    parts, depth, quote, start = [], 0, "", 0
    for place, mark in enumerate(raw):
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        elif mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        elif mark == "," and depth == 0:
            parts.append(raw[start:place])
            start = place + 1
    return [*parts, raw[start:]]


def _folder_name(cell: Sequence[str]) -> str:
    """Returns a run's folder name: its settings, in characters that need no quotes."""
    text = "_".join(part.replace("'", "").replace('"', "") for part in cell)
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-=") else "-" for c in text)[:200]


def open_sweep(folder: Path, sweep: Sweep) -> dict[str, RunDirectory | None]:
    """Makes a sweep's folder, or continues an existing one.

    Args:
        folder: The sweep's folder.
        sweep: The runs.

    Returns:
        By run: its folder, new or of an unfinished run; None: the run is finished.

    Raises:
        UsageError: The folder holds something else, another sweep, or a run of another recipe.
        BadFileError: It cannot be written.
    """
    names = [run.name for run in sweep.runs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SWEEP_FILE).is_file():
            names = _joined(folder, read_sweep(folder), sweep)
        elif any(folder.iterdir()):
            raise UsageError(f"{folder}: exists already, but is not a sweep; give another --out")
        write_sweep(folder, sweep.swept, names, sweep.folds)
    except (OSError, ValueError) as error:
        raise bad_file(error, "written") from error
    return {run.name: opened_run(folder / run.name, run.recipe) for run in sweep.runs}


def _joined(folder: Path, before: SweepFile, sweep: Sweep) -> list[str]:
    """Returns the runs of a folder that a sweep continues: the existing ones, then the new ones.

    A sweep of other fields is allowed if nothing was charged yet, because a first try failed.

    Raises:
        UsageError: The folder has runs of another sweep.
    """
    names = [run.name for run in sweep.runs]
    if set(before.swept) == set(sweep.swept) and before.folds == sweep.folds:
        return list(dict.fromkeys([*before.runs, *names]))
    begun = [folder / name for name in before.runs if (folder / name).exists()]
    if not all(clear_unused(path) or not is_taken(path) for path in begun):
        raise UsageError(
            f"{folder}: has a sweep of {', '.join(before.swept) or 'seeds only'}; give another "
            "--out"
        )
    for path in begun:
        path.rmdir()
    return names


def opened_run(path: Path, recipe: Recipe) -> RunDirectory | None:
    """Returns a run's folder, new or of an unfinished run; None: the run is finished.

    Raises:
        UsageError: The folder has a run of another recipe, in which something was charged.
    """
    if not (path / "recipe.toml").is_file():
        return RunDirectory(path.absolute())
    run = RunDirectory.reopen(path)
    if not _is_same(run.recipe(), recipe):
        if clear_unused(path):  # remove a first try that charged nothing
            return run
        raise UsageError(
            f"{path}: was run with another recipe (see its recipe.toml); give another --out, or "
            "that recipe"
        )
    return None if is_finished(run) else run


def _is_same(begun: Recipe, recipe: Recipe) -> bool:
    """Returns whether a run has this recipe, apart from labels that its data filled in."""
    if not recipe.task.labels:
        task = dataclasses.replace(recipe.task, labels=begun.task.labels)
        recipe = dataclasses.replace(recipe, task=task)
    return begun.digest() == recipe.digest()


def run_sweep(
    sweep: Sweep,
    opened: dict[str, RunDirectory | None],
    run: Callable[[Planned, RunDirectory, int], None],
) -> int:
    """Runs all unfinished runs, one after the other.

    Args:
        sweep: The runs.
        opened: Their folders, from `open_sweep`.
        run: Runs one study in its folder; gets its place in the sweep, from 1.

    Returns:
        The number of runs that were finished before.

    Raises:
        CloisterError: The error that ended a run; earlier runs are kept, and the same command
            continues.
    """
    skipped = 0
    for place, planned in enumerate(sweep.runs, 1):
        folder = opened[planned.name]
        if folder is None:
            skipped += 1
            continue
        if not folder.recipe_file.is_file():
            folder = RunDirectory.create(folder.path, planned.recipe)
        try:
            run(planned, folder, place)
        except BadFileError as error:
            error.add_note(f"in {folder.path}; the same command continues with the unfinished runs")
            raise
    return skipped
