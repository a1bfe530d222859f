"""A study is refused early, before torch or a base is loaded."""

from pathlib import Path

import pytest

from cloister.errors import DataError
from cloister.recipe import read_recipe
from cloister.simulation import early
from cloister.simulation.early import refuse_early


def feedback(place: Path, rows: list[str]) -> list[str]:
    """A training and a test file; the assignments that name them."""
    (place / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    (place / "test.csv").write_text("text,label\nlate,bad\nkind,good\n", encoding="utf-8")
    return [
        f"data.train='{place / 'train.csv'}'",
        f"data.test='{place / 'test.csv'}'",
        "data.partition=iid",
        "data.sites=2",
        "data.public_records=100",
        "training.expected_batch_size=25",
    ]


def test_an_empty_cell_of_a_small_file_is_told_early_wherever_it_is(tmp_path: Path) -> None:
    whole = feedback(tmp_path, ["late,bad"] * 20)
    refuse_early(read_recipe(None, whole))
    broken = feedback(tmp_path, ["late,bad"] * 20 + [",bad"])
    with pytest.raises(DataError, match=r"train\.csv, row 21: text is empty"):
        refuse_early(read_recipe(None, broken))


def test_of_a_large_file_the_first_row_alone_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "READ_WHOLE", 100)
    refuse_early(read_recipe(None, feedback(tmp_path, ["late,bad"] * 20 + [",bad"])))
    with pytest.raises(DataError, match=r"row 1: text is empty"):
        refuse_early(read_recipe(None, feedback(tmp_path, [",bad"] * 21)))


@pytest.mark.parametrize("key", ["data.train", "data.test", "data.public", "data.old_test"])
def test_a_missing_file_is_said_with_the_field_that_names_it(tmp_path: Path, key: str) -> None:
    recipe = read_recipe(None, [*feedback(tmp_path, ["late,bad"] * 20), f"{key}=none.csv"])
    with pytest.raises(DataError, match=rf"none\.csv: no such file; correct {key}$"):
        refuse_early(recipe)


@pytest.mark.parametrize("key", ["data.train", "data.test", "data.validation"])
def test_a_folder_is_refused_early_with_the_field_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(None, [*feedback(tmp_path, ["late,bad"] * 20), f"{key}=folder"])
    with pytest.raises(DataError, match=rf"^folder: is a folder here; name a file in it as {key}"):
        refuse_early(recipe)
