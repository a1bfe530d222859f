"""Reads several labels, or a score, from one cell, exactly as the file states them.

Labels are a list of texts or of integers, or, if a separator is declared, one text. A score is a
number, or a text that is a number, because a CSV file has only texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cloister.data.cells import misfit, whole
from cloister.data.values import Number, Real, Value, is_integer, kind_of

# A number in figures with a full stop, as programs write it: `3`, `-0.5`, `4.`, `1e-3`. A comma may
# separate thousands or decimals, so a text with one is not a number here.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
# Longest number that is read, in characters: float64 needs 17 digits, a sign and an exponent.
_LONGEST = 32


def labels_in_cell(value: Value, column: str, separator: str | None, where: str) -> list[Value]:
    """Returns the labels of a cell, each as the file has it.

    Args:
        value: A list; or, if a separator is declared, a text of labels. Blanks around a label are
            removed, and a blank part between two separators is not a label.
        column: The column, for messages.
        separator: Separates labels in a text; None: a list is needed.
        where: The file and row, for messages.

    Raises:
        MisfitError: The value is neither.
    """
    if isinstance(value, str):
        if separator is None:
            raise misfit(
                where,
                f"{column} is text, not a list of labels; declare their separator "
                "(label_separator), or use JSONL or Parquet",
            )
        return [part.strip() for part in value.split(separator) if part.strip()]
    if isinstance(value, Sequence):
        return list(value)
    raise misfit(
        where,
        f"{column} is {kind_of(value)}, not a list of labels; write an empty list for a text "
        "without labels",
    )


def labels_of_cell(value: Value, column: str, separator: str | None, where: str) -> tuple[str, ...]:
    """Returns a text's labels as they are written, without duplicates, in the cell's order.

    Raises:
        MisfitError: The cell holds no labels, or one that is neither text nor an integer, or empty.
    """
    found = []
    for label in labels_in_cell(value, column, separator, where):
        match label:
            case str() if label.strip():
                found.append(whole(label, column, where))
            case Number(literal) if is_integer(literal):
                found.append(literal)
            case _:
                what = "an empty label" if isinstance(label, str) else kind_of(label)
                raise misfit(where, f"{column} holds {what}; a label is text or an integer")
    return tuple(dict.fromkeys(found))


def score_of_cell(value: Value, column: str, where: str) -> float:
    """Returns a text's score.

    Args:
        value: A number, or a text that is one in digits, with a full stop before decimals.
        column: The column, for messages.
        where: The file and row, for messages.

    Raises:
        MisfitError: The value is not a number, or not finite.
    """
    match value:
        case Number(literal):
            found = _read(literal)
        case Real(_, held):
            found = held
        case str():
            found = _read(value.strip())
        case _:
            raise misfit(where, f"{column} is {kind_of(value)}; a number is needed")
    if found is None or not math.isfinite(found):
        raise misfit(
            where,
            f"{column} is not a number; write digits with a full stop before decimals, as 3.5",
        )
    return found


def _read(literal: str) -> float | None:
    if len(literal) > _LONGEST or not _NUMBER.fullmatch(literal):
        return None
    return float(literal)
