"""Reads a person's items from a cell: ids of public items, oldest first."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.cells import misfit, whole
from cloister.data.values import Number, Value, is_integer, kind_of


def items_of_cell(value: Value, column: str, where: str) -> tuple[str, ...]:
    """Returns the ids of a cell, in its order.

    Args:
        value: A list of texts or of integers; or one text of ids with blanks between them, as in
            the histories of MIND (Wu et al. 2020, ACL).
        column: The column, for messages.
        where: The file and row, for messages.

    Raises:
        MisfitError: It is neither, holds no item, or an id that is empty or neither a text nor an
            integer.
    """
    if isinstance(value, str):
        found: Sequence[Value] = value.split()
    elif isinstance(value, Sequence):
        found = value
    else:
        raise misfit(
            where,
            f"{column} is {kind_of(value)}; a list of item ids, or a text of ids with blanks "
            "between them, is needed",
        )
    if not found:
        raise misfit(where, f"{column} holds no item")
    return tuple(_id(item, column, where) for item in found)


def _id(value: Value, column: str, where: str) -> str:
    match value:
        case str() if value.strip():
            return whole(value, column, where)
        case Number(literal) if is_integer(literal):
            return literal
    what = "an empty id" if isinstance(value, str) else kind_of(value)
    raise misfit(where, f"{column} holds {what}; an id is text or an integer")
