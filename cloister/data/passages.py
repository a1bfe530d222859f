"""Reads public passages, among which a retrieval study looks for the answer to a query."""

from __future__ import annotations

from pathlib import Path

from cloister.data.load import file_rows
from cloister.data.source import DataOrigin
from cloister.data.values import Number, is_integer
from cloister.errors import DataError
from cloister.files import bad_file

_NEEDED = ("id", "text")
_CALL = "call the columns id and text"
_ASKER = DataOrigin("task.passages", _CALL, _CALL)


def read_passages(path: Path) -> dict[str, str]:
    """Reads public passages from a file, by their id.

    Args:
        path: A data file with columns `id` and `text`; other columns are ignored.

    Raises:
        DataError: The file cannot be read, a row lacks one of the two, or an id is a duplicate.
    """
    found: dict[str, str] = {}
    try:
        for number, row in file_rows(path, "test", _NEEDED, _ASKER):
            where = f"{path.name}, row {number}"
            name, text = row.get("id"), row.get("text")
            if isinstance(name, Number) and is_integer(name.written):
                name = name.written
            for column, value in (("id", name), ("text", text)):
                if not isinstance(value, str) or not value.strip():
                    raise DataError(f"{where}: {column} is not text; each passage needs both")
            assert isinstance(name, str)
            assert isinstance(text, str)
            if name in found:
                raise DataError(
                    f"{where}: duplicate id {name[:60]!r}; give each passage an id of its own"
                )
            found[name] = text
    except OSError as error:
        raise bad_file(error, "read") from error
    return found
