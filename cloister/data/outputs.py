"""Writes rows to a new file, complete or not at all, readable by its owner only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cloister.data.csv_rows import csv_line
from cloister.data.values import (
    Moment,
    Number,
    Real,
    Row,
    Unusable,
    Value,
    is_integer,
    kind_of,
    shown,
)
from cloister.errors import DataError, UsageError
from cloister.files import whole_file
from cloister.owner_only import FILE

ENDINGS = (".jsonl", ".csv", ".parquet")
# Rows of a Parquet file that are written together; the first batch decides each column's type.
BATCH = 1024
_HALF = "has half of a surrogate pair, which is not a character; correct the row"
# The widest integer of Parquet.
_INT64 = 2**63


class RowWriter(Protocol):
    """Writes the rows of one file, one by one."""

    def add(self, row: Row, where: str) -> None:
        """Writes a row, at once or with a later batch.

        Args:
            row: Values by column.
            where: The source's file and row, for messages.

        Raises:
            DataError: The format cannot hold it.
        """

    def end(self) -> None:
        """Writes the rows that are still buffered."""


@contextmanager
def new_file(out: Path) -> Iterator[tuple[RowWriter, Path]]:
    """Opens a writer for a new file, which appears only once it is complete.

    Args:
        out: The path: a `.jsonl`, `.csv` or `.parquet` file.

    Yields:
        The writer, and the temporary file with the content: `sha256_of` it for a log.

    Raises:
        UsageError: The ending is unknown, or the path exists at the start or at the end.
        DataError: A row does not fit; nothing is written then.
        OSError: The file cannot be written.
    """
    check_new(out)
    with whole_file(out, FILE) as file:
        writer = _WRITERS[out.suffix.lower()](file)
        yield _Finishing(writer, file), Path(file.name)
        check_place(out)  # the path may exist by now


def check_new(out: Path) -> None:
    """Refuses a path at which no new file of rows can be created.

    Raises:
        UsageError: The ending is unknown, the path exists, or its folder does not.
    """
    check_place(out)
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out: {out} given; a file that ends in {', '.join(ENDINGS)} is needed")


def check_place(path: Path, option: str = "--out", what: str = "file") -> None:
    """Refuses a path for a new file or folder before any work is done for it.

    Args:
        path: The path.
        option: The option that names it.
        what: What will be created there: `file` or `folder`.

    Raises:
        UsageError: The path exists, even as a broken link, or its folder does not.
    """
    if os.path.lexists(path):
        raise UsageError(
            f"{option}: {path} exists already and is not overwritten; give a new {what}"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{option}: the folder {path.parent} does not exist; make it first")


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Finishing:
    """A writer whose `end` also flushes the content, so that the temporary file can be hashed."""

    def __init__(self, writer: RowWriter, file: BinaryIO) -> None:
        self._writer, self._file = writer, file
        self.add = writer.add

    def end(self) -> None:
        self._writer.end()
        self._file.flush()


def json_text(value: Value) -> str:
    """Returns a value as JSON, its numbers digit for digit as they were read.

    Raises:
        DataError: JSON cannot hold a value of its type.
    """
    if isinstance(value, Number):
        return value.written
    if isinstance(value, Real) and value.written is not None:
        return value.written
    if isinstance(value, Moment):
        return _quoted(value.written)
    if isinstance(value, Unusable):
        raise DataError(f"{value.kind} cannot be written; convert the column to text first")
    if isinstance(value, Mapping):
        return "{" + ", ".join(_member(name, inner) for name, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(json_text(v) for v in value) + "]"
    return _quoted(value)


def _member(name: str, value: Value) -> str:
    try:
        return f"{_quoted(name)}: {json_text(value)}"
    except DataError as error:
        raise DataError(f"{shown(name)}: {error}") from error


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


class _JsonLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, row: Row, where: str) -> None:
        try:
            line = json_text(row)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        self._file.write(_encoded(line + "\n", where))

    def end(self) -> None:
        """Does nothing: each row was written at once."""


class _Csv:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._header: list[str] | None = None

    def add(self, row: Row, where: str) -> None:
        if self._header is None:
            self._header = list(row)
            self._write(self._header, where)
        if more := [name for name in row if name not in self._header]:
            raise DataError(
                f"{where}: has the column {shown(more[0])!r}, which the first row lacks; CSV needs "
                "the same columns in every row: write a .jsonl"
            )
        self._write([_cell(row.get(name), name, where) for name in self._header], where)

    def end(self) -> None:
        """Does nothing: each row was written at once."""

    def _write(self, cells: list[str], where: str) -> None:
        try:
            line = csv_line(cells)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        self._file.write(_encoded(line, where))


def _cell(value: Value, name: str, where: str) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Number(written) | Real(written=str(written)) | Moment(written=written):
            return written
    raise DataError(
        f"{where}: {shown(name)} is {kind_of(value)}, which CSV cannot hold: write a .jsonl"
    )


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {_HALF}") from error


class _Parquet:
    """Writes rows in batches; the first batch decides each column's type."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[dict[str, Any]] = []
        self._where = ""
        self._writer: Any = None

    def add(self, row: Row, where: str) -> None:
        self._rows.append({name: _plain(value, name, where) for name, value in row.items()})
        self._where = where
        if len(self._rows) == BATCH:
            self._flush()

    def end(self) -> None:
        if self._rows or self._writer is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = dict.fromkeys(name for row in self._rows for name in row)
        columns = {name: [row.get(name) for row in self._rows] for name in names}
        try:
            if self._writer is None:
                arrays = {name: pa.array(values) for name, values in columns.items()}
                schema = pa.schema(
                    # A column without a value so far becomes one of texts.
                    (name, pa.string() if pa.types.is_null(array.type) else array.type)
                    for name, array in arrays.items()
                )
                self._writer = pq.ParquetWriter(self._file, schema)
            schema = self._writer.schema
            if more := [name for name in columns if name not in schema.names]:
                raise DataError(
                    f"up to {self._where}: the column {shown(more[0])!r} is new, but Parquet needs "
                    "the same columns in every row: write a .jsonl"
                )
            empty: list[Any] = [None] * len(self._rows)
            cells = [pa.array(columns.get(f.name, empty), type=f.type) for f in schema]
            self._writer.write_batch(pa.record_batch(cells, schema=schema))
        except UnicodeEncodeError as error:
            raise DataError(f"up to {self._where}: {_HALF}") from error
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"up to {self._where}: a column holds values of several types, which Parquet "
                "cannot hold: write a .jsonl"
            ) from error
        self._rows = []


def _plain(value: Value, name: str, where: str) -> Any:
    """Returns a value for pyarrow: integers as int, other numbers as text, digit for digit."""
    if isinstance(value, Number):
        whole = is_integer(value.written) and abs(int(value.written)) < _INT64
        return int(value.written) if whole else value.written
    if isinstance(value, Real) and value.written is not None:
        return value.value
    if isinstance(value, Moment):
        return value.written
    if isinstance(value, Unusable):
        raise DataError(
            f"{where}: {shown(name)} is {value.kind}, which has several spellings; convert the "
            "column to text first"
        )
    if isinstance(value, Mapping):
        return {key: _plain(inner, name, where) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner, name, where) for inner in value]
    return value


_WRITERS: dict[str, Callable[[BinaryIO], RowWriter]] = {
    ".jsonl": _JsonLines,
    ".csv": _Csv,
    ".parquet": _Parquet,
}
