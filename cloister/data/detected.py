"""Detects the form of a data file (encoding, separator), or takes the one that the user gives."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.csv_rows import SEPARATORS, csv_rows
from cloister.data.encodings import Encoding, detect, known_encoding
from cloister.data.formats import (
    SEPARATOR_NAMES,
    TEXTS,
    FileForm,
    form_of,
    listed_endings,
    separator_of,
)
from cloister.data.load import file_rows
from cloister.data.source import DataOrigin
from cloister.data.values import Row
from cloister.errors import DataError, UsageError
from cloister.files import why_no_file

# Rows for which a separator must give the header's number of cells.
LOOKED_AT = 100
COMMAND = DataOrigin("FILE", "give --{key} its column's name", "give --person its column's name")


@dataclass(frozen=True)
class Detected:
    """The form of a file, and how it is known.

    Attributes:
        path: The file.
        form: The form in which it is read.
        size: Size in bytes.
        encoding: The encoding of its text; None for Parquet and Arrow.
        separator_why: How the separator is known; None: there is none.
    """

    path: Path
    form: FileForm
    size: int
    encoding: Encoding | None
    separator_why: str | None

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yields all rows with all their columns, each with its number.

        Raises:
            DataError: The file is damaged, has no row, or changed while it was read.
        """
        names = self.names() if self.form.kind in ("parquet", "arrow") else ()
        number = 0
        for number, row in file_rows(self.path, "train", names, COMMAND, self.form):
            yield number, row
        if not number:
            raise DataError(f"{self.path}: no records; give a file with at least one row")

    def names(self) -> tuple[str, ...]:
        """Returns the columns of the first row, in order.

        Raises:
            DataError: The file is damaged, or has no row.
        """
        for _, row in file_rows(self.path, "train", (), COMMAND, self.form):
            return tuple(row)
        raise DataError(f"{self.path}: no records; give a file with at least one row")

    def __str__(self) -> str:
        parts = [self.form.kind + (", gzip" if self.form.is_gzip else "")]
        if self.encoding is not None:
            parts.append(str(self.encoding))
        if self.separator_why is not None:
            separator = self.form.separator
            parts.append(f"{SEPARATORS.get(separator, repr(separator))} ({self.separator_why})")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the form as JSON values."""
        encoding = self.encoding
        return {
            "name": self.path.name,
            "bytes": self.size,
            "format": self.form.kind,
            "gzip": self.form.is_gzip,
            "encoding": encoding.name if encoding else None,
            "encoding_because": encoding.why if encoding else None,
            "line_endings": encoding.line_endings if encoding else None,
            "separator": self.form.separator if self.separator_why else None,
            "separator_because": self.separator_why,
        }


def detect_form(
    path: Path, encoding: str | None = None, separator: str | None = None, *, quotes: bool = True
) -> Detected:
    """Detects the form of a file.

    Args:
        path: The file.
        encoding: Its encoding, if the user gives it.
        separator: Its separator, if given: one character, or `comma`, `semicolon`, `tab`, `bar`.
        quotes: Whether `"` encloses cells of a CSV or TSV.

    Raises:
        UsageError: The encoding or separator is unknown.
        DataError: The file is missing, empty or damaged, or its form cannot be detected.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct the path")
    form = form_of(path)
    if form is None:
        raise DataError(f"{path}: not one of {listed_endings()}; convert it")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: empty; give a file with records")
    if form.kind not in TEXTS:
        if encoding is not None or separator is not None:
            raise UsageError(
                f"{path}: a {form.kind} file has neither encoding nor separator; leave --encoding "
                "and --separator out"
            )
        return Detected(path, form, size, None, None)
    given = known_encoding(encoding) if encoding is not None else None
    found = detect(path, form.is_gzip, given)
    form = dataclasses.replace(form, encoding=found.name, quotes=quotes)
    if form.kind != "csv":
        if separator is not None:
            raise UsageError(f"{path}: not a CSV or TSV; leave --separator out")
        return Detected(path, form, size, found, None)
    if separator is not None:
        form = dataclasses.replace(form, separator=_character(separator))
        return Detected(path, form, size, found, "given")
    mark, because = _separator(path, form)
    return Detected(path, dataclasses.replace(form, separator=mark), size, found, because)


def _character(separator: str) -> str:
    found = separator_of(separator)
    if found is None:
        raise UsageError(
            f"--separator {separator!r}: one character is needed, or one of "
            f"{', '.join(SEPARATOR_NAMES)}"
        )
    return found


def _separator(path: Path, form: FileForm) -> tuple[str, str]:
    """Returns the separator of cells, and how it is known.

    Raises:
        DataError: Several fit equally well.
    """
    headers, fitting = [], []
    for mark in SEPARATORS:
        columns, fits = _fit(path, dataclasses.replace(form, separator=mark))
        if columns > 1:
            headers.append(mark)
            fitting += [mark] * fits
    if len(fitting) == 1:
        return fitting[0], "each of the first rows has as many cells as the header"
    candidates = fitting or headers
    if not candidates:
        return form.separator, "from the ending; the header names one column"
    if len(candidates) == 1:
        return candidates[0], "the only one in the header"
    both = " and ".join(SEPARATORS[mark] for mark in candidates)
    raise DataError(
        f"{path}: its header contains {both}, and both could separate cells; name the right one "
        "(--separator)"
    )


def _fit(path: Path, form: FileForm) -> tuple[int, bool]:
    """Returns the header's number of columns under a separator, and whether the first rows fit."""
    columns = 0
    try:
        for _, row in itertools.islice(csv_rows(path, form), LOOKED_AT):
            columns = len(row)
    except DataError as error:
        if ", row " not in str(error):  # the error is in the header
            return 0, False
        return columns or _header_width(path, form), False
    return columns or _header_width(path, form), True


def _header_width(path: Path, form: FileForm) -> int:
    from cloister.data.lines import text_lines

    for _, line in text_lines(path, "line", form):
        return line.count(form.separator) + 1
    return 0
