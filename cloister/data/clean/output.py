"""Writes a new file of records that appears only once it is complete, for its owner only."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cloister.data.csv_rows import csv_line
from cloister.data.formats import FileForm, form_of
from cloister.data.outputs import check_place, json_text
from cloister.data.values import Moment, Number, Real, Value
from cloister.errors import UsageError
from cloister.files import whole_file
from cloister.owner_only import FILE


def output_form(path: Path) -> FileForm:
    """Returns the form in which a file is written, from its ending.

    Raises:
        UsageError: No file can be written with this ending.
    """
    form = form_of(path)
    if form is None or form.kind not in ("json", "csv") or ".json" in path.suffixes:
        raise UsageError(
            f"--out {path}: no file can be written with this ending; give .jsonl, .csv or .tsv, or "
            "one of them with .gz"
        )
    return form


@contextmanager
def new_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[NewRows, Path]]:
    """Opens a new file for rows, which appears only once it is complete.

    Args:
        path: The path: `.jsonl`, `.csv` or `.tsv`, also with `.gz`.
        columns: The columns of a CSV or TSV, in order.

    Yields:
        The rows' writer, and the temporary file with the content, to be hashed after `end`.

    Raises:
        UsageError: The path exists, at the start or at the end.
        OSError: The file cannot be written.
    """
    form = output_form(path)
    check_place(path)
    with whole_file(path, FILE) as file:
        rows = NewRows(file, form, columns)
        try:
            yield rows, Path(file.name)
        finally:
            rows.end()  # also after an error: gzip must not write to a closed file later
        check_place(path)  # it may exist by now


class NewRows:
    """Writes rows in a file's form.

    Args:
        file: The file, open for bytes.
        form: Its form.
        columns: The columns of a CSV or TSV, in order; they become its first line.

    Raises:
        UsageError: A column's name cannot be in a CSV.
    """

    def __init__(self, file: BinaryIO, form: FileForm, columns: Sequence[str]) -> None:
        self._file, self._form, self._columns = file, form, columns
        self._gzip: gzip.GzipFile | None = None
        if form.is_gzip:  # no time, no name: the same records give the same bytes
            self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        if form.kind == "csv":
            self._write_cells(columns)

    def _write_cells(self, cells: Sequence[str]) -> None:
        try:
            line = csv_line(cells, self._form.separator)
        except ValueError as error:
            raise UsageError(f"a row {error}") from error
        self._write(line)

    def write(self, row: Mapping[str, Value]) -> None:
        """Writes one row in the file's form.

        Args:
            row: Values by column; for a CSV only texts, numbers, dates, true and false.

        Raises:
            DataError: JSON cannot hold a value, as an infinite number.
        """
        if self._form.kind == "csv":
            self._write_cells([_cell(row.get(name)) for name in self._columns])
        else:
            self._write(f"{json_text(row)}\n")

    def end(self) -> None:
        """Completes the content; no row may be written after this."""
        if self._gzip is not None:
            self._gzip.close()  # writes its checksum, and leaves the file under it open
        self._file.flush()

    def _write(self, text: str) -> None:
        (self._gzip or self._file).write(text.encode())


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Number(written) | Real(written=str(written)) | Moment(written=written):
            return written
    raise UsageError(
        "a list or an object cannot be a cell of a CSV; give --out a name that ends in .jsonl"
    )
