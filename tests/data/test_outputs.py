"""A new file of rows never overwrites another, even one that appears while rows are written."""

from pathlib import Path

import pytest

from cloister.data.clean.output import new_rows
from cloister.data.outputs import new_file
from cloister.errors import UsageError


def test_a_file_that_appears_while_rows_are_written_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "notes.jsonl"
    with (  # noqa: PT012
        pytest.raises(UsageError, match="exists already"),
        new_file(out) as (writer, _),
    ):
        writer.add({"text": "ours"}, "row 1")
        writer.end()
        out.write_text("theirs")
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


def test_so_it_is_where_a_cleaned_file_is_moved_to_its_place(tmp_path: Path) -> None:
    out = tmp_path / "notes.jsonl"
    with (  # noqa: PT012
        pytest.raises(UsageError, match="exists already"),
        new_rows(out, ("text",)) as (rows, _),
    ):
        rows.write({"text": "ours"})
        rows.end()
        out.write_text("theirs")
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]
