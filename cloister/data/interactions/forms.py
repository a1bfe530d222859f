"""Reads rows of files of interactions: tables with a header, MovieLens' `.dat`, MIND's `.tsv`.

Of MovieLens (Harper and Konstan 2015, ACM TiiS 5(4)) the newer sets are CSV files with a header and
the older ones lines of cells with `::` between them. MIND's (Wu et al. 2020, ACL) behaviors and
news are lines of cells with tabs. Neither of the latter has a header or quotes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.data.detected import detect_form
from cloister.data.encodings import known_encoding
from cloister.data.formats import COMPRESSED, SEPARATOR_NAMES, FileForm
from cloister.data.lines import text_lines
from cloister.data.values import Row
from cloister.errors import DataError, UsageError
from cloister.files import why_no_file

# Longest separator of cells, in characters; `::` has two.
MOST_SEPARATOR = 4


@dataclass(frozen=True, kw_only=True)
class LineForm:
    """The form of a file of lines without a header.

    Attributes:
        names: The names that the cells get here, in order.
        separator: The text between two cells.
        encoding: The encoding of the text.
    """

    names: tuple[str, ...]
    separator: str
    encoding: str = "utf-8"


# The forms by name; a table has a header of its own, so it needs no form.
EVENTS: Mapping[str, LineForm | None] = {
    "table": None,
    "movielens": LineForm(
        names=("user", "item", "rating", "timestamp"), separator="::", encoding="latin-1"
    ),
    "mind": LineForm(
        names=("impression", "user", "time", "history", "impressions"), separator="\t"
    ),
}
ITEMS: Mapping[str, LineForm | None] = {
    "table": None,
    "movielens": LineForm(names=("item", "title", "genres"), separator="::", encoding="latin-1"),
    "mind": LineForm(
        names=(
            *("item", "category", "subcategory", "title", "abstract"),
            *("url", "title_entities", "abstract_entities"),
        ),
        separator="\t",
    ),
}


def rows_of(
    path: Path,
    form: LineForm | None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file of interactions or items, each with its number.

    Args:
        path: The file.
        form: Its form; None: a data file with a header, whose form is detected.
        separator: The separator of cells: `::`, `tab`, a character; None: the form's.
        encoding: The encoding; None: the form's.

    Raises:
        UsageError: The encoding or separator is unknown.
        DataError: The file is missing or damaged, or a row has more or fewer cells than the form.
    """
    if form is None:
        yield from detect_form(path, encoding, separator).rows()
        return
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct the path")
    if separator is not None:
        mark = SEPARATOR_NAMES.get(separator, separator)
        if not 1 <= len(mark) <= MOST_SEPARATOR or set(mark) & set("\r\n\0"):
            raise UsageError(f"--separator {separator!r}: 1 to {MOST_SEPARATOR} characters needed")
        form = replace(form, separator=mark)
    if encoding is not None:
        form = replace(form, encoding=known_encoding(encoding))
    written = FileForm(
        kind="csv", is_gzip=path.suffix.lower() == COMPRESSED, encoding=form.encoding
    )
    for number, line in text_lines(path, "row", written):
        if text := line.rstrip("\r\n"):
            yield number, _cells(text, form, f"{path.name}, row {number}")


def _cells(text: str, form: LineForm, where: str) -> Row:
    cells: Sequence[str] = text.split(form.separator)
    if len(cells) != len(form.names):
        raise DataError(
            f"{where}: {len(cells)} cells between {form.separator!r}, but {len(form.names)} are "
            f"needed ({', '.join(form.names)}); correct the row, or give --separator"
        )
    return dict(zip(form.names, cells, strict=True))
