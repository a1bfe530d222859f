"""Reads tables in memory, of several libraries, as records, and writes them as JSON lines.

The same rules apply as for a file, so that the same rows give the same records with every library:
identifiers and labels are texts or integers, and no type is guessed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from cloister.bounds import shortened
from cloister.data.config import DataConfig
from cloister.data.record_schema import Reading
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    RecordKind,
    ScoreRecord,
    TextRecord,
)
from cloister.data.source import DataOrigin
from cloister.data.unit_column import UNIT
from cloister.data.values import Number, Row, Unusable, Value
from cloister.errors import DataError, UsageError
from cloister.files import bad_file, write_whole
from cloister.owner_only import private_folder

PYTHON = DataOrigin(
    "{split}=",
    "name the column in Study(..., {key}=...)",
    "name the column in Study(..., person=...)",
)
NEEDED = "a pandas.DataFrame, pyarrow.Table, datasets.Dataset or list of dicts is needed"


def is_table(value: object) -> bool:
    """Returns whether a value is a table, by its type.

    Raises:
        UsageError: It has several tables, and none is named.
    """
    if _is_a(value, "datasets", "DatasetDict", "IterableDatasetDict"):
        raise UsageError(
            f"data: a {type(value).__name__} given; give one split as data and another as test, "
            'as in data=splits["train"], test=splits["test"]'
        )
    return isinstance(value, list | tuple) or _is_arrow_like(value)


def records_in(
    table: object, name: str, kind: RecordKind, columns: DataConfig, *, train: bool, sites: bool
) -> tuple[Record, ...]:
    """Reads all rows of a table.

    Args:
        table: A pandas.DataFrame, pyarrow.Table, datasets.Dataset or list of dicts.
        name: Its name in messages.
        kind: The kind of record that the task reads.
        columns: Column names.
        train: Whether the rows are training data, which name persons if `columns` does.
        sites: Whether each row must name its site.

    Raises:
        UsageError: It is not a table.
        DataError: It has no rows, or one lacks what the task needs; the row's number is from 1.
    """
    if isinstance(table, str | PathLike):
        raise UsageError(
            f"{name}: the file {shortened(str(table))} given for one site; put all sites' rows "
            "into one file with a column that names their site, or read this one into a table"
        )
    if not is_table(table):
        raise UsageError(f"{name}: {type(table).__name__} given; {NEEDED}")
    reading = Reading(kind, columns, persons=train, sites=sites, asker=PYTHON)
    rows = (
        _list_rows(table, name) if isinstance(table, list | tuple) else _rows(table, name, reading)
    )
    records = tuple(reading.record(row, name, number) for number, row in enumerate(rows, 1))
    if not records:
        raise DataError(f"{name}: no records; give at least one row")
    return records


def places(tables: Iterable[str], folder: Path) -> dict[str, Path]:
    """Returns the path to which `write_tables` writes each table."""
    return {name: folder / f"{name}.jsonl" for name in tables}


def write_tables(tables: Mapping[str, Sequence[Record]], folder: Path, columns: DataConfig) -> None:
    """Writes records as JSON lines that read back equal, in files that only their owner can read.

    Args:
        tables: Records by split: `train`, `test` or `validation`.
        folder: Created if it is missing.
        columns: Column names.

    Raises:
        BadFileError: The folder cannot be written.
    """
    try:
        private_folder(folder)
        for name, place in places(tables, folder).items():
            rows = (_row_of(record, columns) for record in tables[name])
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_whole(place, lines.encode(), mode=0o600)
    except (OSError, ValueError) as error:
        raise bad_file(error, "written") from error


def _row_of(record: Record, columns: DataConfig) -> dict[str, object]:
    row: dict[str, object]
    if isinstance(record, TextRecord):
        row = {columns.text: record.text, columns.label: record.label}
        if isinstance(record, PairRecord):
            row[columns.second] = record.text_b
    elif isinstance(record, LabelsRecord):
        row = {columns.text: record.text, columns.labels_column: list(record.labels)}
    elif isinstance(record, ScoreRecord):
        row = {columns.text: record.text, columns.score_column: record.score}
    elif isinstance(record, ItemsRecord):
        row = {columns.items_column: list(record.items)}
    elif isinstance(record, ChatRecord):
        row = _chat_row(record, columns)
    else:
        row = {columns.tokens: record.tokens, columns.tags: record.tags}
    if record.site is not None:
        row[columns.site] = record.site
    if record.person is not None and columns.person is not None:
        row[columns.person] = record.person
    if record.unit is not None:
        row[UNIT] = record.unit
    return row


def _chat_row(record: ChatRecord, columns: DataConfig) -> dict[str, object]:
    """Returns the row of a text that is learnt whole, a preference, or a conversation."""
    if record.text is not None:
        return {columns.messages: record.text}
    if record.rejected is not None:
        return {"chosen": _turns(record.messages), "rejected": _turns(record.rejected)}
    return {columns.messages: _turns(record.messages)}


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in messages]


def _is_a(value: object, library: str, *names: str) -> bool:
    """Returns whether a value is of a library's type, without loading the library."""
    module = sys.modules.get(library)
    kinds = tuple(getattr(module, name) for name in names if hasattr(module, name))
    return isinstance(value, kinds)


def _is_arrow_like(value: object) -> bool:
    return (
        _is_a(value, "pandas", "DataFrame")
        or _is_a(value, "pyarrow", "Table", "RecordBatch")
        or _is_a(value, "datasets", "Dataset")
    )


def _list_rows(rows: Sequence[object], name: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, row {number}: {type(row).__name__} given; a dict is needed")
        yield {str(key): _value(cell) for key, cell in row.items()}


def _value(cell: object) -> Value:
    """Returns a Python object as a cell's value, as JSON would have it."""
    item = getattr(cell, "item", None)
    if callable(item) and _is_a(cell, "numpy", "generic"):
        cell = item()
    match cell:
        case None | bool() | str():
            return cell
        case int() | float():
            return Number(repr(cell))
        case Mapping():
            return {str(key): _value(inner) for key, inner in cell.items()}
        case list() | tuple():
            return [_value(inner) for inner in cell]
    return Unusable(type(cell).__name__)


def _rows(table: Any, name: str, reading: Reading) -> Iterator[Row]:
    """Yields the rows of a table that Arrow can hold; for columns that are not read only names."""
    import pyarrow as pa

    from cloister.data.arrow_rows import class_names, rows_of

    is_frame = _is_a(table, "pandas", "DataFrame")
    held = [str(column) for column in (table.columns if is_frame else _names(table))]
    read = [column for column in dict.fromkeys(reading.columns_read) if column in held]
    repeated = [column for column in read if held.count(column) > 1]
    if repeated:
        raise DataError(f"{name}: duplicate column {repeated[0]!r}; rename one")
    others: Row = {column: Unusable("a column that is not read") for column in held}
    names: Mapping[str, tuple[str, ...]] = {}
    if not read:  # one row, so that a message can list the columns
        yield from [others] * bool(len(table))
        return
    if is_frame:
        exact = pa.table({column: _array(table[column], name) for column in read})
    elif _is_a(table, "datasets", "Dataset"):
        names = class_names(table.features.to_dict(), name)
        exact = table.select_columns(read).with_format("arrow")[:]
    else:
        exact = table.select(read)
    batches = exact.to_batches() if isinstance(exact, pa.Table) else [exact]
    for batch in batches:
        for row in rows_of(batch, names):
            yield {**others, **row}


def _names(table: Any) -> list[str]:
    names: list[str] = table.column_names if hasattr(table, "column_names") else table.schema.names
    return names


def _array(column: Any, name: str) -> Any:
    """Converts a pandas column to Arrow; missing values (None, NaN, NA) become null."""
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name}: column {str(column.name)!r} has values of several kinds, or of a kind with "
            "several spellings; convert all to text"
        ) from error
