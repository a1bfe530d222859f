"""Reads a public catalogue: the items that a model can recommend, each with an id and a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.data.cells import misfit, whole
from cloister.data.config import CHINESE_SHOPS, GENERATED
from cloister.data.load import file_rows
from cloister.data.public_file import check_sha256, file_sha256
from cloister.data.source import RECIPE, DataOrigin
from cloister.data.values import Number, Row, is_integer, kind_of, shown
from cloister.errors import DataError
from cloister.files import bad_file

KEY = "task.items"
# Columns of an items file.
COLUMNS = ("item", "text")
# Built-in catalogues that are generated, not read: the same items in English and in Chinese.
MADE = (GENERATED["items"], CHINESE_SHOPS)
# A batch of 32 people needs a score for each item. With 100,000 items the scores take 13 MB, and a
# test set is scored in seconds. MovieLens 25M has 62,000 movies; MIND large 161,000 news.
MOST_ITEMS = 200_000


@dataclass(frozen=True)
class Catalogue:
    """Public items in the order of their file.

    Attributes:
        ids: The items' ids, which people's sequences contain.
        texts: The items' texts, which the base reads.
        sha256: Hash of the file's bytes, in hex; for generated items, of the lines of `to_jsonl`.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    sha256: str

    def to_jsonl(self) -> str:
        """Returns the items as the text of an items file."""
        return "".join(catalogue_lines(zip(self.ids, self.texts, strict=True)))


def catalogue_lines(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields the lines of an items file, from ids and texts."""
    for item, text in items:
        yield json.dumps({"item": item, "text": text}, ensure_ascii=False) + "\n"


def read_catalogue(
    source: str, expected: str | None, key: str = KEY, asker: DataOrigin = RECIPE
) -> Catalogue:
    """Reads a public catalogue.

    Args:
        source: A file with columns `item` and `text`, or a built-in generator's name (`MADE`).
        expected: The SHA-256 that it must have; None: any.
        key: The key or option that names the file, for messages.
        asker: The file or command that names it, for messages.

    Raises:
        DataError: The file does not exist, differs from the study's, lacks an id or text in a
            row, has a duplicate id, or has fewer than 2 or more than `MOST_ITEMS` items.
        BadFileError: It cannot be read.
    """
    if source in MADE:
        found = _made(source)
        check_sha256(found.sha256, expected, source, key)
        return found
    path = Path(source).expanduser()
    sha256 = file_sha256(path, key)
    check_sha256(sha256, expected, source, key)
    texts: dict[str, str] = {}
    try:
        for number, row in file_rows(path, "test", COLUMNS, asker):
            where = f"{path.name}, row {number}"
            item, text = _id(row, where), _text(row, where)
            if item in texts:
                raise misfit(where, f"duplicate item {shown(item)}; give each item one row")
            texts[item] = text
            if len(texts) > MOST_ITEMS:
                raise DataError(f"{key}: {source} has over {MOST_ITEMS} items; give fewer")
    except OSError as error:
        raise bad_file(error, "read") from error
    if len(texts) < 2:
        raise DataError(f"{key}: {source} has {len(texts)} items; at least 2 are needed")
    return Catalogue(tuple(texts), tuple(texts.values()), sha256)


def catalogue_sha256(source: str, key: str = KEY) -> str:
    """Returns the SHA-256 of a catalogue's file or generator; see `read_catalogue`."""
    if source in MADE:
        return read_catalogue(source, None, key).sha256
    return file_sha256(Path(source).expanduser(), key)


def _made(source: str) -> Catalogue:
    from cloister.data.synthetic_shops import shop_items
    from cloister.data.synthetic_shops_chinese import chinese_shop_items

    items = chinese_shop_items() if source == CHINESE_SHOPS else shop_items()
    ids, texts = zip(*items, strict=True)
    made = Catalogue(ids, texts, "")
    return replace(made, sha256=hashlib.sha256(made.to_jsonl().encode()).hexdigest())


def _id(row: Row, where: str) -> str:
    value = row.get("item")
    match value:
        case str() if value.strip():
            return whole(value, "item", where)
        case Number(literal) if is_integer(literal):
            return literal
    what = "empty" if isinstance(value, str) else kind_of(value)
    raise misfit(where, f"item is {what}; an id, a text or an integer, is needed")


def _text(row: Row, where: str) -> str:
    value = row.get("text")
    if not isinstance(value, str) or not value.strip():
        what = "empty" if isinstance(value, str) else kind_of(value)
        raise misfit(where, f"text is {what}; a description of the item is needed")
    return whole(value, "text", where)
