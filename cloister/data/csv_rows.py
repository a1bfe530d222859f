"""Reads rows of a CSV file (RFC 4180): every cell is the text exactly as it is written."""

from __future__ import annotations

import csv
import io
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cloister.data.formats import FileForm
from cloister.data.lines import text_lines
from cloister.data.values import MOST_ROW_BYTES, Row, shown
from cloister.errors import DataError

# The separators that programs use.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
COMMAS = FileForm(kind="csv")
# The standard library's limit on a field's size is global to the process: it is changed while one
# row is read, by one thread at a time.
_FIELD_LIMIT = threading.Lock()


def csv_rows(path: Path, form: FileForm = COMMAS) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number, from 1 for the first below the header.

    Blank lines are skipped. No type is inferred: `NA`, `true`, `1e3` and `007` are texts.

    Args:
        path: The file.
        form: Its encoding and separator.

    Raises:
        DataError: Another separator is used, the header has a duplicate column, or a row has more
            or fewer cells than the header, is badly quoted, or is too large.
        OSError: The file cannot be read.
    """
    lines = _Lines(path, form)
    reader = csv.reader(
        lines,
        strict=True,
        delimiter=form.separator,
        quoting=csv.QUOTE_MINIMAL if form.quotes else csv.QUOTE_NONE,
    )
    header = _next(reader, lines, f"{path.name}, header")
    if header is None:
        return
    if (first := header[0]).lower().startswith("sep=") and len("".join(header)) <= len("sep=") + 1:
        raise DataError(
            f"{path}, line 1: {shown(first)!r} tells Excel the separator and is no header; remove "
            "the line"
        )
    if len(header) == 1 and (found := _other_separators(header[0], form.separator)):
        used = SEPARATORS.get(form.separator, repr(form.separator))
        raise DataError(
            f"{path}: its header is one column that contains {found[0]}, but the separator is "
            f"{used}: set `separator` beside the file's name in recipe or site.toml, or rewrite "
            "the file with `cloister data clean`, which detects it"
        )
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise DataError(
            f"{path}: duplicate header {shown(repeated[0])!r}, so it is not clear which column to "
            "read; rename or remove one"
        )
    number = 1
    while (cells := _next(reader, lines, f"{path.name}, row {number}")) is not None:
        if len(cells) != len(header):
            raise DataError(
                f"{path.name}, row {number}: {len(cells)} cells, but the header names "
                f"{len(header)} columns; put quotes around a text that contains a "
                f"{form.separator!r} or a line break"
            )
        yield number, dict(zip(header, cells, strict=True))
        number += 1


def csv_line(cells: Sequence[str], separator: str = ",") -> str:
    """Returns the line of a CSV file that `csv_rows` reads as these cells, with its line feed.

    Raises:
        ValueError: A cell holds a NUL character, which a CSV file cannot hold; the message says so.
    """
    if any("\0" in cell for cell in cells):
        raise ValueError(
            "holds a NUL character, which CSV cannot hold: remove it, or write a .jsonl"
        )
    line = io.StringIO()
    # The writer quotes cells that contain a character of its line ending. With a carriage return in
    # the ending it also quotes a cell with one alone, which readers refuse outside of quotes.
    csv.writer(line, delimiter=separator, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _other_separators(header: str, used: str) -> list[str]:
    """Returns the other separators in a header of one column, in words."""
    return [word for mark, word in SEPARATORS.items() if mark in header and mark != used]


class _Lines:
    """Gives lines to the parser, up to a limit, so that an open quote does not read all of them."""

    def __init__(self, path: Path, form: FileForm) -> None:
        self._lines = text_lines(path, "line", form)
        self.left = MOST_ROW_BYTES

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)[1]
        self.left -= len(line)
        if self.left < 0:
            raise csv.Error("longer than a row may be")
        return line


def _next(reader: Any, lines: _Lines, where: str) -> list[str] | None:
    """Returns the next row that is not blank; None at the end."""
    cells: list[str] | None = []
    with _FIELD_LIMIT:
        before = csv.field_size_limit(MOST_ROW_BYTES)
        try:
            while cells == []:
                lines.left = MOST_ROW_BYTES
                cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}: {_reason(str(error))}") from error
        finally:
            csv.field_size_limit(before)
    return cells


def _reason(message: str) -> str:
    """Says what is wrong, from the parser's message, without a quote of a cell."""
    if "longer" in message or "field limit" in message:
        return (
            f"longer than {MOST_ROW_BYTES >> 20} MiB, the most that a row may hold; look for a "
            "quote before it that is not closed"
        )
    if "end of data" in message:
        return "a quote is opened but not closed; close it"
    if "new-line" in message:
        return (
            "a carriage return without a line feed is outside of quotes; end lines with a line "
            "feed, or put quotes around the text"
        )
    return "text follows a closing quote; inside of quotes, double each quote"
