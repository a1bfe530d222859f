"""A public file of items, from MovieLens' movies, MIND's news or a table of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.bounds import listed
from cloister.data.cells import misfit
from cloister.data.interactions.events import CALLED, id_of_cell
from cloister.data.interactions.forms import ITEMS, rows_of
from cloister.data.outputs import new_file
from cloister.data.values import Row
from cloister.errors import DataError, UsageError
from cloister.files import bad_file

# Columns of which an item's text is made, in this order, those that there are.
TEXTS = ("text", "title", "name", "genres", "category", "subcategory", "description", "abstract")
# MovieLens' mark between genres, and what it writes where there is none.
_GENRES, _NONE = "|", "(no genres listed)"


@dataclass(frozen=True, kw_only=True)
class ItemOptions:
    """How a file of items is read.

    Attributes:
        form: One of `ITEMS`.
        item: Column of ids; absent: as the form says, or guessed by name.
        texts: Columns of the text, in order; absent: those of `TEXTS` that there are.
        separator: In place of the form's.
        encoding: In place of the form's.
    """

    form: str = "table"
    item: str | None = None
    texts: tuple[str, ...] = ()
    separator: str | None = None
    encoding: str | None = None


def item_file(source: Path, out: Path, options: ItemOptions | None = None) -> int:
    """Writes a public file of items, with columns `item` and `text`; returns how many they are.

    Args:
        source: The items.
        out: A new file: `.jsonl`, `.csv` or `.parquet`.
        options: How the source is read; absent: a table with a header.

    Raises:
        UsageError: `out` is there, or a column is not.
        DataError: The source is missing or damaged, a row is ragged, has no id or no text, an id
            is there twice, or there are fewer than two items. Nothing is written then.
    """
    options = options or ItemOptions()
    if options.form not in ITEMS:
        raise UsageError(f"--form {options.form}: one of {', '.join(ITEMS)} is needed")
    seen: set[str] = set()
    try:
        with new_file(out) as (writer, _):
            for where, item, text in _items(source, options):
                if item in seen:
                    raise misfit(where, "an id is there twice; name each item once")
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
