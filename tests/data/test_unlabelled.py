"""Inputs of predictions are read as words, conversations or texts; labels are ignored."""

import json
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.records import Message, RecordKind
from cloister.data.unlabelled import read_unlabelled
from cloister.errors import DataError

COLUMNS = DataConfig(tokens="words", messages="turns", text="note")


def read(folder: Path, kind: RecordKind, *rows: object) -> list[object]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_unlabelled(path, kind, COLUMNS))


def test_each_kind_has_its_column(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}]
    row = {"note": "chest pain", "words": ["knee", "pain"], "turns": turns, "label": 3.5}
    assert read(tmp_path, "text", row) == ["chest pain"]
    assert read(tmp_path, "tokens", row) == [("knee", "pain")]
    assert read(tmp_path, "messages", row) == [(Message("user", "hello"),)]


@pytest.mark.parametrize("kind", ["tokens", "messages"])
def test_a_text_stands_in_for_words_and_turns(tmp_path: Path, kind: RecordKind) -> None:
    assert read(tmp_path, kind, {"note": "chest pain"}) == ["chest pain"]


def test_a_csv_s_words_are_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("words\nchest pain\n")
    assert read_unlabelled(path, "tokens", COLUMNS) == ["chest pain"]


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (
            "text",
            {"text": "a"},
            "no column 'note' \\(found: text\\); give the file's column this name",
        ),
        ("tokens", {"text": "a"}, "no column 'words' or 'note'"),
        ("tokens", {"words": []}, "must be a list of words"),
        ("messages", {"turns": [{"role": "user"}]}, "turn 1 needs a role"),
        ("text", {"note": True}, "note is true or false; text is needed"),
        ("text", {"note": None}, "note has no value"),
    ],
)
def test_what_lacks_is_named_with_its_row(
    tmp_path: Path, kind: RecordKind, row: object, said: str
) -> None:
    sound = {"note": "a", "words": ["a"], "turns": [{"role": "user", "content": "a"}]}
    with pytest.raises(DataError, match=f"rows.jsonl, row 2: .*{said}"):
        read(tmp_path, kind, sound, row)


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; correct --data"):
        read_unlabelled(tmp_path / "none.jsonl", "text", COLUMNS)
    (tmp_path / "rows.csv").write_text("note\n")
    with pytest.raises(DataError, match="no records"):
        read_unlabelled(tmp_path / "rows.csv", "text", COLUMNS)
