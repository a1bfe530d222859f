"""The records that are shown, each by the number that tells it from the others everywhere."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.data.detected import Detected
from cloister.data.guess import SPACELESS
from cloister.data.outputs import json_text
from cloister.data.roles import Roles, find_roles, refuse_items, text_of
from cloister.data.values import Number, Row, Value, is_integer
from cloister.errors import DataError, MisfitError, UsageError
from cloister.labelling.scheme import Kind

# The column that tells which record a row is, in every annotator's file; not a person's unit.
ROW = "cloister_row"
ANNOTATOR = "cloister_annotator"
# Disagreements carry the annotators' answers for whoever decides; they are no part of a record.
ANSWERS = "cloister_answers"
# Records that one page holds in memory: what nobody labels by hand is sampled first.
MOST_ITEMS = 20_000
# Texts are cut into these: a letter of a script without blanks, a word, or any other mark.
_SPACELESS = "".join(f"{chr(s.start)}-{chr(s.stop - 1)}" for s in SPACELESS)
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+|[^\w\s]|_")


@dataclass(frozen=True)
class LabelItem:
    """One record to be labelled.

    Attributes:
        number: Which record of the source, in every annotator's file.
        text: What is read.
        words: What entities are made of; empty where whole texts are labelled.
        row: All that the source says of it.
    """

    number: int
    text: str
    words: tuple[str, ...]
    row: Row


def read_items(
    form: Detected,
    kind: Kind,
    given: Mapping[str, str | None],
    sample: int | None = None,
    seed: int = 0,
) -> tuple[list[LabelItem], int]:
    """Reads the records that can be shown, in the order of the file.

    Args:
        form: The file.
        kind: What is answered about them.
        given: Columns by role (`text`, `tokens`, `messages`), where somebody named them.
        sample: How many are drawn at random; absent: all.
        seed: Of that draw; the same one gives all annotators the same records.

    Returns:
        The records, and how many rows the file has.

    Raises:
        UsageError: There are too many for a page, or a column is not there.
        DataError: The file is damaged, or a row holds nothing to read.
    """
    roles = find_roles(form.rows(), given)
    refuse_items(roles, "label")
    if kind == "entities" and roles.kind == "messages":
        raise UsageError("--answer entities: conversations given; a text or its words are needed")
    rows = 0
    for _ in form.rows():
        rows += 1
    chosen = None
    if sample is not None and sample < rows:
        chosen = set(random.Random(seed).sample(range(rows), sample))
    elif rows > MOST_ITEMS:
        raise UsageError(
            f"{form.path}: {rows:,} records, and a page takes {MOST_ITEMS:,}; draw some (--sample "
            "300)"
        )
    items = [
        _item(row, roles, kind, number, f"{form.path.name}, row {number}")
        for place, (number, row) in enumerate(form.rows())
        if chosen is None or place in chosen
    ]
    return items, rows


def _item(row: Row, roles: Roles, kind: Kind, number: int, where: str) -> LabelItem:
    text = text_of(row, roles, where)
    if not text.strip():
        raise MisfitError(
            "an empty text",
            f"{where}: its text is empty, so nobody can label it; leave empty texts out "
            "(cloister data clean)",
        )
    try:
        json_text(row).encode()
    except (DataError, UnicodeEncodeError) as error:
        raise DataError(
            f"{where}: a column cannot be written to the new file ({error}); leave it out"
        ) from error
    words: tuple[str, ...] = ()
    if kind == "entities":
        held = row.get(roles.tokens or "")
        words = words_in(text) if roles.kind != "tokens" else tuple(map(str, _listed(held)))
    return LabelItem(number_of(row, number), text, words, row)


def _listed(value: Value) -> list[Value]:
    return list(value) if isinstance(value, list | tuple) else []


def words_in(text: str) -> tuple[str, ...]:
    """The words of a text, as entities are marked on: Chinese characters are words of their own."""
    return tuple(_WORDS.findall(text))


def number_of(row: Row, number: int) -> int:
    """Which record a row is: as it says itself, where it comes from such a file, or its number."""
    own = row.get(ROW)
    if isinstance(own, Number) and is_integer(own.written) and len(own.written) < 19:
        return int(own.written)
    if isinstance(own, str) and is_integer(own) and len(own) < 19:  # a CSV holds texts alone
        return int(own)
    return number
