"""Reads a time, in the forms that files of interactions have."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from cloister.data.cells import misfit
from cloister.data.values import Moment, Number, Value, kind_of

T = TypeVar("T")

# MIND's form: 11/15/2019 10:22:32 AM.
MIND = "%m/%d/%Y %I:%M:%S %p"


def time_of_cell(value: Value, column: str, where: str) -> tuple[str, float]:
    """Returns a time as a number, so that the times of one file can be put in order.

    Args:
        value: Seconds (or another number that grows with time); a date or a date with a time in
            ISO 8601, or stored as one; or MIND's form. A time without a zone means UTC.
        column: Its column, for messages.
        where: The file and row, for messages.

    Returns:
        The kind, `a number` or `a date`, and the number. Times of two kinds cannot be compared.

    Raises:
        MisfitError: It is none of these.
    """
    text = value.written if isinstance(value, Number | Moment) else value
    if isinstance(text, str):
        number = _tried(float, text)
        if number is not None and math.isfinite(number):
            return "a number", number
        for read in (datetime.fromisoformat, lambda t: datetime.strptime(t, MIND)):
            moment = _tried(read, text.strip())
            if moment is not None:
                zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
                return "a date", zoned.timestamp()
    what = "text that is not a time" if isinstance(value, str) else kind_of(value)
    raise misfit(
        where,
        f"{column} is {what}; a number of seconds, or a date as 2024-03-31 or "
        "2024-03-31T12:30:00, is needed",
    )


def _tried(read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except (ValueError, OverflowError):
        return None
