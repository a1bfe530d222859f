"""Reads the records to label, each with a number that identifies it in every annotator's file."""

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

# Column with a record's number in every annotator's file. It is not a privacy unit.
ROW = "cloister_row"
ANNOTATOR = "cloister_annotator"
# Columns with the annotators' answers in a file of disagreements; they are not part of a record.
ANSWERS = "cloister_answers"
# Most records of a page, which holds them in memory; larger files are sampled first.
MOST_ITEMS = 20_000
# Pieces of a text: a letter of a script without blanks, a word, or any other mark.
_SPACELESS = "".join(f"{chr(s.start)}-{chr(s.stop - 1)}" for s in SPACELESS)
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+|[^\w\s]|_")


@dataclass(frozen=True)
class LabelItem:
    """One record to be labelled.

    Attributes:
        number: The record's number in the source and in every annotator's file.
        text: The text that the annotator reads.
        words: The words that entities are marked on; empty if whole texts are labelled.
        row: All columns of the record in the source.
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
        kind: Kind of the answers.
        given: Named columns by role (`text`, `tokens`, `messages`); others have usual names.
        sample: How many records to draw at random; None: all.
        seed: Seed of that draw; with the same seed all annotators get the same records.

    Returns:
        The records, and the number of rows in the file.

    Raises:
        UsageError: There are too many records for a page, or a column is missing.
        DataError: The file is damaged, or a row has no text.
    """
    roles = find_roles(form.rows(), given)
    refuse_items(roles, "label")
    if kind == "entities" and roles.kind == "messages":
        raise UsageError(
            "--answer entities: the file has conversations; needed is a column of texts or of words"
        )
    rows = 0
    for _ in form.rows():
        rows += 1
    chosen = None
    if sample is not None and sample < rows:
        chosen = set(random.Random(seed).sample(range(rows), sample))
    elif rows > MOST_ITEMS:
        raise UsageError(
            f"{form.path}: {rows:,} records; a page shows at most {MOST_ITEMS:,}: draw a sample "
            "(--sample 300)"
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
            f"{where}: the text is empty and cannot be labelled; remove empty texts "
            "(cloister data clean)",
        )
    try:
        json_text(row).encode()
    except (DataError, UnicodeEncodeError) as error:
        raise DataError(
            f"{where}: a column cannot be written to the new file ({error}); remove the column"
        ) from error
    words: tuple[str, ...] = ()
    if kind == "entities":
        held = row.get(roles.tokens or "")
        words = words_in(text) if roles.kind != "tokens" else tuple(map(str, _listed(held)))
    return LabelItem(number_of(row, number), text, words, row)


def _listed(value: Value) -> list[Value]:
    return list(value) if isinstance(value, list | tuple) else []


def words_in(text: str) -> tuple[str, ...]:
    """Cuts a text into the words on which entities are marked; each Chinese character is a word."""
    return tuple(_WORDS.findall(text))


def number_of(row: Row, number: int) -> int:
    """Returns a row's record number: its own, if it is from such a file, else its position."""
    own = row.get(ROW)
    if isinstance(own, Number) and is_integer(own.written) and len(own.written) < 19:
        return int(own.written)
    if isinstance(own, str) and is_integer(own) and len(own) < 19:  # a CSV holds only texts
        return int(own)
    return number
