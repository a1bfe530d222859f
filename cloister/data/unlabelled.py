"""Reads rows without labels, for predictions: one or two texts, words, items, or a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.data.cells import misfit, whole
from cloister.data.chat_rows import turns_of
from cloister.data.config import DataConfig
from cloister.data.load import file_rows
from cloister.data.record_schema import LISTED, words_of
from cloister.data.records import Message, RecordKind
from cloister.data.sequences import items_of_cell
from cloister.data.source import RELEASED
from cloister.data.values import Row, kind_of, shown
from cloister.errors import DataError, MisfitError
from cloister.files import bad_file

# The input of a prediction: a text, two texts, a sentence's words, a person's items as their ids,
# or a conversation's turns.
Unlabelled = str | tuple[str, ...] | tuple[Message, ...]


def read_unlabelled(path: Path, kind: RecordKind, columns: DataConfig) -> list[Unlabelled]:
    """Reads the inputs of predictions at once; see `unlabelled_rows`."""
    return list(unlabelled_rows(path, kind, columns))


def unlabelled_rows(path: Path, kind: RecordKind, columns: DataConfig) -> Iterator[Unlabelled]:
    """Reads the inputs of predictions row by row, in order; labels are ignored.

    Args:
        path: The file.
        kind: The kind of record of the task. A row without words or conversation gives its text.
        columns: Column names.

    Raises:
        DataError: The file is missing, damaged or empty, or a row lacks what is needed.
    """
    pair = (columns.text, columns.second)
    own = {"tokens": columns.tokens, "messages": columns.messages}.get(kind, columns.text)
    if kind == "items":
        own = columns.items_column
    needed = pair if kind == "pairs" else tuple(dict.fromkeys((own, columns.text)))
    try:
        number = 0
        for number, row in file_rows(path, "test", needed, RELEASED):
            where = f"{path.name}, row {number}"
            if kind == "pairs":
                yield (_text(row, pair[:1], where), _text(row, pair[1:], where))
            elif kind == "items":
                if row.get(own) is None:
                    raise _missing(row, (own,), where)
                yield items_of_cell(row[own], own, where)
            else:
                yield _unlabelled(row, kind, needed, where)
    except OSError as error:
        raise bad_file(error, "read") from error
    if number == 0:
        raise DataError(f"{path}: no records; give a file with at least one row")


def _unlabelled(row: Row, kind: RecordKind, needed: tuple[str, ...], where: str) -> Unlabelled:
    column = next((name for name in needed if row.get(name) is not None), None)
    if column is None:
        raise _missing(row, needed, where)
    value = row[column]
    if kind == "tokens" and column == needed[0] and not isinstance(value, str):
        return words_of(value, column, where)
    if kind == "messages" and column == needed[0] and not isinstance(value, str):
        return turns_of(value, column, where)
    return _text(row, (column,), where)


def _text(row: Row, columns: tuple[str, ...], where: str) -> str:
    """Returns the text in the first of some columns that has a value."""
    column = next((name for name in columns if row.get(name) is not None), None)
    if column is None:
        raise _missing(row, columns, where)
    value = row[column]
    if not isinstance(value, str):
        raise misfit(where, f"{column} is {kind_of(value)}; text is needed")
    if not value.strip():
        raise misfit(where, f"{column} is empty; a text is needed")
    return whole(value, column, where)


def _missing(row: Row, needed: tuple[str, ...], where: str) -> MisfitError:
    empty = [name for name in needed if name in row]
    if empty:
        return misfit(where, f"{empty[0]} has no value (null); correct the row")
    names = " or ".join(repr(name) for name in needed)
    held = [shown(name) for name in row]
    found = ", ".join(held[:LISTED]) + (", …" if len(held) > LISTED else "")
    return MisfitError(
        f"no column {names}",
        f"{where}: no column {names} (found: {found or 'none'}); {RELEASED.remedy('')}",
    )
