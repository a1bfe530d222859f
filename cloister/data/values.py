"""The values of a row's cells, exactly as the file states them: no type is inferred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Largest row in bytes. A base with the longest context that exists, a million tokens, reads about 4
# MiB of text; four times that leaves room for other columns.
MOST_ROW_BYTES = 16 * 2**20
# Most characters of a name or value in a message; more would fill the terminal.
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Number:
    """A number as the file writes it, digit for digit.

    Attributes:
        written: Its literal as it is written in the file, of any length: `007`, `1.0` and `1`
            stay three different literals.
    """

    written: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A value that no record can hold, such as bytes, because it has several spellings.

    Attributes:
        kind: Its type, for messages.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Real(Unusable):
    """A number that its file stores in binary: it has several spellings, so it can only be a score.

    Attributes:
        value: The number; it may be infinite or NaN.
    """

    value: float

    @property
    def written(self) -> str | None:
        """Returns the shortest spelling of the same number; None if it is infinite or NaN."""
        return repr(self.value) if math.isfinite(self.value) else None


@dataclass(frozen=True, slots=True)
class Moment(Unusable):
    """A date or time that its file stores in binary: elsewhere it may be spelt otherwise, so it can
    be no identifier and no label, only a time, or be carried along.

    Attributes:
        written: In ISO 8601: `2024-03-31`, `2024-03-31T12:30:00.5`; with `+00:00` at its end if the
            file states a zone.
    """

    written: str


# A value in a file: text, number, boolean, null, or a list or object of these.
Value = str | Number | bool | None | Unusable | Sequence["Value"] | Mapping[str, "Value"]
Row = Mapping[str, Value]


def kind_of(value: Value) -> str:
    """Returns the kind of a value, in words that do not show the value."""
    match value:
        case None:
            return "nothing"
        case str():
            return "text"
        case bool():
            return "true or false"
        case Number(written):
            return "an integer" if is_integer(written) else "a number that is not an integer"
        case Unusable(kind):
            return kind
        case Mapping():
            return "an object"
    return "a list"


def is_integer(written: str) -> bool:
    """Returns whether a literal is an integer in its standard spelling: no +, no -0, no 00."""
    digits = written.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return False
    return digits[0] != "0" or written == "0"


def shown(text: str) -> str:
    """Returns a name or value from a file, safe to print: cut, without control characters.

    A terminal executes control characters, and cannot print a lone surrogate.
    """
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut
    )
