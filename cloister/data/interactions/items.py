"""Writes a public file of items, from MovieLens' movies, MIND's news or a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.bounds import listed
from cloister.data.cells import misfit
from cloister.data.interactions.forms import ITEMS, rows_of
from cloister.data.interactions.interaction_row import CALLED, id_of_cell
from cloister.data.outputs import new_file
from cloister.data.values import Row
from cloister.errors import DataError, UsageError
from cloister.files import bad_file

# An item's text is made from those of these columns that exist, in this order.
TEXTS = ("text", "title", "name", "genres", "category", "subcategory", "description", "abstract")
# MovieLens' separator of genres, and its text for a movie without a genre.
_GENRES, _NONE = "|", "(no genres listed)"


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """The options of `item_file`: the form of the source and its columns.

    Attributes:
        form: One of `ITEMS`.
        item: Column of ids; absent: the form's column, or guessed by name.
        texts: Columns of the text, in order; absent: those of `TEXTS` that exist.
        separator: Separator of cells; absent: the form's.
        encoding: Encoding of the text; absent: the form's.
    """

    form: str = "table"
    item: str | None = None
    texts: tuple[str, ...] = ()
    separator: str | None = None
    encoding: str | None = None


def item_file(source: Path, out: Path, options: ItemOptions | None = None) -> int:
    """Writes a public file of items, with columns `item` and `text`; returns their number.

    Args:
        source: The file of items.
        out: A new file: `.jsonl`, `.csv` or `.parquet`.
        options: The options; absent: the source is a table with a header.

    Raises:
        UsageError: `out` exists already, or a column does not exist.
        DataError: The source is missing or damaged, a row has too many or too few cells, no id or
            no text, an id is duplicate, or there are fewer than two items. Nothing is written
            then.
    """
    options = options or ItemOptions()
    if options.form not in ITEMS:
        raise UsageError(f"--form {options.form}: one of {', '.join(ITEMS)} is needed")
    seen: set[str] = set()
    try:
        with new_file(out) as (writer, _):
            for where, item, text in _items(source, options):
                if item in seen:
                    raise misfit(where, "the item's id is duplicate; give each item one row")
                seen.add(item)
                writer.add({"item": item, "text": text}, where)
            if len(seen) < 2:
                raise DataError(f"{source}: {len(seen)} items; at least 2 are needed")
            writer.end()
    except OSError as error:
        raise bad_file(error) from error
    return len(seen)


def _items(source: Path, options: ItemOptions) -> Iterator[tuple[str, str, str]]:
    columns: tuple[str, Sequence[str]] | None = None
    rows = rows_of(source, ITEMS[options.form], options.separator, options.encoding)
    for number, row in rows:
        columns = columns or _columns(tuple(row), options)
        where = f"{source.name}, row {number}"
        item = id_of_cell(row.get(columns[0]), columns[0], where)
        text = ". ".join(filter(None, (_text(row, column) for column in columns[1])))
        if not text:
            raise misfit(where, f"no text in {', '.join(columns[1])}; every item needs one")
        yield where, item, text


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    text = value.strip() if isinstance(value, str) else ""
    return "" if text == _NONE else text.replace(_GENRES, ", ")


def _columns(names: tuple[str, ...], options: ItemOptions) -> tuple[str, Sequence[str]]:
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    item = options.item or next((plain[word] for word in CALLED["item"] if word in plain), "")
    texts = options.texts or tuple(plain[word] for word in TEXTS if word in plain)
    lacking = [name for name in (item, *texts) if name not in names]
    if lacking or not texts:
        which = "--item" if item not in names else "--text"
        raise UsageError(f"{which}: no such column (found: {listed(names)}); name it")
    return item, texts
