"""Guesses the roles of a file's columns, by their names and first rows, to start a recipe.

A guess is a suggestion that a person reads and corrects. Training never uses it: a study reads the
columns that its recipe names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.column_names import (
    ITEMS,
    LABELS,
    PAIRS,
    PERSONS,
    SCORES,
    SEVERAL,
    SITES,
    SUFFIX,
    TEXTS,
)
from cloister.data.load import file_rows
from cloister.data.records import RecordKind
from cloister.data.score_extent import ScoreExtent, extent_of
from cloister.data.sequences import items_of_cell
from cloister.data.tag_schemes import KNOWN
from cloister.data.targets import score_of_cell
from cloister.data.unit_column import UNIT
from cloister.data.values import MOST_ROW_BYTES, Number, Row, Value
from cloister.errors import DataError, MisfitError

# Rows on which a guess is based; all rows are counted.
LOOKED_AT = 1000
# About how many bytes of rows are kept for it: four of the longest texts.
MOST_LOOKED_AT = 4 * MOST_ROW_BYTES
# About how many bytes Python needs for an empty list or object.
_CONTAINER = 64
# Most sites in one file: a column with more different values more likely has persons or dates.
MOST_SITES_GUESSED = 50
# Least mean number of records per label; with fewer, a column is not one of labels.
FEWEST_PER_LABEL = 2

# Code points of scripts that put no blank between words: Thai and Lao; Burmese; Khmer; Japanese
# syllables; Chinese characters with their extensions. Korean has blanks.
SPACELESS = (
    range(0x0E00, 0x0F00),
    range(0x1000, 0x10A0),
    range(0x1780, 0x1800),
    range(0x3040, 0x3100),
    range(0x3400, 0xA000),
    range(0x20000, 0x32000),
)
_WORDS = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The probable kind and columns of a file.

    Attributes:
        kind: The kind of record; None: the columns fit no task.
        columns: The file's columns, by role: `text` and `label`, with `text_b` for pairs, `labels`
            or `score`, `tokens` and `tags`, `items`, or `messages`; also `person` and `site` if
            they exist.
        names: All columns.
        rows: Number of rows.
        records: Number of records: rows with the same `UNIT` are one record and its copies.
        most_rows: Largest number of rows of one record.
        persons: Number of different persons; None: no such column.
        sites: Number of different sites; None: no such column.
        is_spaceless: Whether its texts are written without blanks between words, as Chinese is.
        scores: The extent of its scores; None: it has none.
    """

    kind: RecordKind | None
    columns: Mapping[str, str]
    names: tuple[str, ...]
    rows: int
    records: int
    most_rows: int
    persons: int | None
    sites: int | None
    is_spaceless: bool
    scores: ScoreExtent | None = None


def guess(path: Path, wanted: RecordKind | None = None) -> Guess:
    """Guesses the roles of a file's columns.

    Args:
        path: The file.
        wanted: The only kind of record to look for; None: any.

    Raises:
        DataError: The file is missing, damaged or empty.
    """
    names = _names(path)
    others = file_rows(path, "train", names)
    first = first_rows(others)
    person, site = _person(names, first), _site(names, first)
    persons, sites = _distinct(first, person), _distinct(first, site)
    kind, columns = _records(names, first, wanted, {person, site, UNIT})
    score = columns.get("score")
    scores = extent_of(row.get(score) for row in first) if score is not None else None
    rows = len(first)
    made = Counter(_values(first, UNIT))
    for _, row in others:
        rows += 1
        made.update(_values([row], UNIT))
        persons |= _distinct([row], person)
        sites |= _distinct([row], site)
        if scores is not None and (one := extent_of([row.get(score or "")])) is not None:
            scores = scores.with_(one)
    text = columns.get("text")
    return Guess(
        kind=kind,
        columns={
            **columns,
            **({"person": person} if person is not None else {}),
            **({"site": site} if site is not None else {}),
        },
        names=names,
        rows=rows,
        records=rows - made.total() + len(made),
        most_rows=max(made.values(), default=1),
        persons=len(persons) if person is not None else None,
        sites=len(sites) if site is not None else None,
        is_spaceless=text is not None and is_spaceless([str(row.get(text, "")) for row in first]),
        scores=scores,
    )


def first_rows(rows: Iterable[tuple[int, Row]]) -> list[Row]:
    """Returns the rows on which a guess is based: `LOOKED_AT`, or fewer if they are large.

    Without a bound on their size, a thousand of the largest rows would fill the memory.
    """
    found: list[Row] = []
    size = 0
    for _, row in rows:
        found.append(row)
        size += _size(row)
        if len(found) == LOOKED_AT or size > MOST_LOOKED_AT:
            break
    return found


def _size(value: Value) -> int:
    """Returns about how many bytes a value needs: its characters, and a constant per container."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Number):
        return len(value.written)
    if isinstance(value, Mapping):
        return _CONTAINER + sum(len(name) + _size(inner) for name, inner in value.items())
    if isinstance(value, Sequence):
        return _CONTAINER + sum(map(_size, value))
    return 1


def guess_columns(
    names: Sequence[str], rows: list[Row]
) -> tuple[RecordKind | None, dict[str, str]]:
    """Guesses the kind of record and the roles of columns from a file's first rows.

    Args:
        names: The columns.
        rows: The first rows.

    Returns:
        The kind, and columns by role. The kind is None if the columns fit no task; the columns that
        were found (a text, a person, a site) are returned in any case.
    """
    person, site = _person(names, rows), _site(names, rows)
    kind, columns = _records(names, rows, None, {person, site, UNIT})
    taken = (person, site, UNIT)
    if kind is None and (text := _text([n for n in names if n not in taken], rows)):
        columns = {"text": text}
    columns |= {"person": person} if person is not None else {}
    columns |= {"site": site} if site is not None else {}
    return kind, columns


def is_spaceless(texts: Sequence[str]) -> bool:
    """Returns whether most letters of some texts are of a script without blanks between words."""
    letters = [character for text in texts for character in text if character.isalpha()]
    without = sum(any(ord(c) in script for script in SPACELESS) for c in letters)
    return without > len(letters) / 2


def _names(path: Path) -> tuple[str, ...]:
    """Returns the columns of the first row, in order; a Parquet file's come from its schema."""
    for _, row in file_rows(path, "train", ()):
        return tuple(row)
    raise DataError(f"{path}: no records; give a file with at least one row")


def _records(
    names: Sequence[str], rows: list[Row], wanted: RecordKind | None, taken: set[str | None]
) -> tuple[RecordKind | None, dict[str, str]]:
    """Returns the kind of record and its columns; tries the most specific kind first."""
    if wanted in (None, "messages"):
        chats = [name for name in names if _all(rows, name, _is_chat)]
        if chats:
            return "messages", {"messages": chats[0]}
    if wanted in (None, "items"):
        ids = [name for name in names if name not in taken and _all(rows, name, _is_ids)]
        had = [name for name in ids if name.lower() in ITEMS or wanted == "items"]
        if had:
            return "items", {"items": had[0]}
    if wanted in (None, "tokens"):
        lists = [name for name in names if _all(rows, name, _is_texts)]
        tags = [name for name in lists if _all(rows, name, _is_tags)]
        tokens = [name for name in lists if name not in tags]
        if tags and tokens:
            return "tokens", {"tokens": tokens[0], "tags": tags[0]}
    free = [name for name in names if name not in taken]
    if wanted in (None, "pairs"):
        texts = [name for name in names if name not in taken and _has_texts(rows, name)]
        two = _pair(texts, named=wanted is None)
        label = _label([n for n in names if n not in (*taken, *(two or ()))], rows)
        if two is not None and label is not None:
            return "pairs", {"text": two[0], "text_b": two[1], "label": label}
    if wanted in (None, "labels") and (text := _text(free, rows)) is not None:
        several = _several([name for name in free if name != text], rows, wanted == "labels")
        if several is not None:
            return "labels", {"text": text, "labels": several}
    if wanted == "score" and (text := _text(free, rows)) is not None:
        scores = [n for n in free if n != text and _all(rows, n, _is_score)]
        score = _named(scores, SCORES) or next(iter(scores), None)
        if score is not None:
            return "score", {"text": text, "score": score}
    if wanted in (None, "text"):
        text = _text(free, rows)
        label = _label([name for name in free if name != text], rows)
        if text is not None and label is not None:
            return "text", {"text": text, "label": label}
    return None, {}


def _all(rows: list[Row], name: str, fits: Callable[[Value], bool]) -> bool:
    """Returns whether all values of a column satisfy a predicate."""
    return all(fits(row.get(name)) for row in rows)


def _is_chat(value: Value) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in value)
    )


def _is_ids(value: Value) -> bool:
    """Returns whether a value is ids of items: a list, or a text, as `data.sequences` reads them.

    Any text can be read as words with blanks between them, so a text counts as ids only if each
    word has a digit.
    """
    if isinstance(value, str) and not all(_DIGIT.search(word) for word in value.split()):
        return False
    try:
        return bool(items_of_cell(value, "", ""))
    except MisfitError:
        return False


def _is_texts(value: Value) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(item, str) for item in value)
    )


def _is_tags(value: Value) -> bool:
    assert isinstance(value, Sequence)
    return all(isinstance(item, str) and KNOWN.fullmatch(item) is not None for item in value)


def _several(names: Sequence[str], rows: list[Row], wanted: bool) -> str | None:
    """Returns the column of lists of labels, by its name; None: there is none.

    If `wanted`, a list of texts of any name fits too, or a column of texts with such a name. If
    not, the result is None when another column has a single label.
    """
    lists = [name for name in names if _all(rows, name, _is_texts)]
    plain = [name for name in names if _all(rows, name, _is_plain)]
    if not wanted:
        return _named(lists, SEVERAL) if _named(plain, LABELS) is None else None
    return _named(lists, SEVERAL) or next(iter(lists), None) or _named(plain, SEVERAL)


def _is_score(value: Value) -> bool:
    try:
        score_of_cell(value, "", "")
    except MisfitError:
        return False
    return True


def _has_texts(rows: list[Row], name: str) -> bool:
    """Returns whether all values of a column are texts; rows without a value are allowed."""
    held = [row[name] for row in rows if row.get(name) is not None]
    return bool(held) and all(isinstance(value, str) for value in held)


def _pair(texts: Sequence[str], *, named: bool) -> tuple[str, str] | None:
    """Returns two columns of texts: by their names, else, unless `named`, the first two."""
    lower = {name.lower(): name for name in texts}
    for one, other in PAIRS:
        if one in lower and other in lower:
            return lower[one], lower[other]
    return (texts[0], texts[1]) if len(texts) > 1 and not named else None


def _text(names: Sequence[str], rows: list[Row]) -> str | None:
    """Returns the column of texts: by its name, else the one with the longest values."""
    texts = [name for name in names if _all(rows, name, lambda value: isinstance(value, str))]
    named = _named(texts, TEXTS)
    if named is not None:
        return named
    return max(texts, key=lambda name: sum(len(str(r[name])) for r in rows), default=None)


def _label(names: Sequence[str], rows: list[Row]) -> str | None:
    """Returns the column of labels: by its name, else the one with the fewest different values."""
    counts = {name: len(_distinct(rows, name)) for name in names if _all(rows, name, _is_plain)}
    named = _named(list(counts), LABELS)
    if named is not None:
        return named
    likely = {n: c for n, c in counts.items() if 2 <= c <= max(2, len(rows) // FEWEST_PER_LABEL)}
    return min(likely, key=lambda name: likely[name], default=None)


def _person(names: Sequence[str], rows: list[Row]) -> str | None:
    """Returns the column of persons, by its name only: no other sign is certain."""
    plain = [name for name in names if _all(rows, name, _is_plain)]
    return _named(plain, PERSONS)


def _site(names: Sequence[str], rows: list[Row]) -> str | None:
    """Returns the column of institutions, by its name, if it has few different values."""
    few = [
        name
        for name in names
        if _all(rows, name, _is_plain) and 2 <= len(_distinct(rows, name)) <= MOST_SITES_GUESSED
    ]
    return _named(few, SITES)


def _is_plain(value: Value) -> bool:
    return isinstance(value, str | bool | Number)


def _named(names: Sequence[str], words: str) -> str | None:
    """Returns the first name that contains one of the words as a whole word; earlier words first.

    A Chinese word counts at the name's end, or before a suffix such as that of a number: `就诊科室`
    names a ward and `病人编号` a person, but `病人主诉` does not.
    """
    split = {name: {word.lower() for word in _WORDS.findall(name)} for name in names}
    for word in words.split():
        for name, parts in split.items():
            is_last = not word.isascii() and re.search(f"{word}{SUFFIX}$", name.lower())
            if word in parts or is_last:
                return name
    return None


def _distinct(rows: Sequence[Row], name: str | None) -> set[str]:
    return set() if name is None else set(_values(rows, name))


def _values(rows: Sequence[Row], name: str) -> list[str]:
    values = (row.get(name) for row in rows)
    return [v.written if isinstance(v, Number) else str(v) for v in values if v is not None]
