"""A run's folder is cleared only if nothing was charged in it and no process uses it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.errors import UsageError
from cloister.ledger.ledger import Ledger
from cloister.recipe import Recipe, parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.server.unused_run import MARK, clear_unused, held
from tests.support.ledgers import charge, new_ledger


def begun(folder: Path) -> RunDirectory:
    """A run that failed before its first round: a recipe, and ledgers without a charge."""
    run = RunDirectory.create(folder, Recipe())
    new_ledger(run.ledger("a"))
    (run.path / "tensorboard").mkdir()
    return run


def test_a_new_run_takes_the_place_of_one_that_charged_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    again = RunDirectory.create(tmp_path / "run", Recipe())
    assert {path.name for path in again.path.iterdir()} == {MARK, "recipe.toml"}


def test_records_that_the_run_wrote_are_cleared_and_no_others(tmp_path: Path) -> None:
    place = tmp_path / "run"
    train, test = place / "data" / "train.jsonl", place / "data" / "test.jsonl"
    recipe = parse_recipe("", [f"data.train='{train}'", f"data.test='{test}'"])
    run = RunDirectory.create(place, recipe)
    train.parent.mkdir()
    train.write_text("{}")
    test.write_text("{}")
    assert RunDirectory.create(place, recipe) == run
    assert not train.exists()
    train.parent.mkdir()
    (place / "data" / "mine.csv").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        RunDirectory.create(place, recipe)
    assert (place / "data" / "mine.csv").read_text() == "mine"


def test_a_recipe_that_somebody_wrote_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(Recipe().to_toml() + "# mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        RunDirectory.create(tmp_path, Recipe())
    assert (tmp_path / "recipe.toml").read_text(encoding="utf-8").endswith("# mine\n")


def charged(run: RunDirectory) -> None:
    Ledger(run.ledger("a")).reserve(charge(1))


def metrics(run: RunDirectory) -> None:
    run.append_metrics({"round": 1})


def foreign(run: RunDirectory) -> None:
    (run.path / "notes.txt").write_text("mine")


def damaged(run: RunDirectory) -> None:
    run.ledger("a").write_bytes(b"no ledger")


def taken_away(run: RunDirectory) -> None:
    run.ledger("a").unlink()


def kept_beside(run: RunDirectory) -> None:
    (run.path / "ledgers" / "a.personal").write_bytes(b"x")


def no_recipe(run: RunDirectory) -> None:
    run.recipe_file.unlink()


@pytest.mark.parametrize(
    "change", [charged, metrics, foreign, damaged, taken_away, kept_beside, no_recipe]
)
def test_in_doubt_a_folder_is_kept(tmp_path: Path, change: Callable[[RunDirectory], None]) -> None:
    run = begun(tmp_path / "run")
    change(run)
    before = sorted(path for path in run.path.rglob("*") if not path.name.endswith(".lock"))
    with pytest.raises(UsageError, match="exists already"):
        RunDirectory.create(run.path, Recipe())
    after = sorted(path for path in run.path.rglob("*") if not path.name.endswith(".lock"))
    assert after == before


def test_a_folder_in_which_a_process_runs_is_kept_and_is_nobody_else_s(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with held(run.path):
        assert not clear_unused(run.path)
        with pytest.raises(UsageError, match="another process runs in it"), held(run.path):
            pass
    assert clear_unused(run.path)
