"""What one cell of a row holds, exactly as its file says it: nothing is inferred or converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# One row of a file may hold so many bytes. A base of a million tokens of context, the longest
# there are, reads about 4 MiB of text; four times that leaves room for other columns.
MOST_ROW_BYTES = 16 * 2**20
# Characters of a name or value that a message shows; more would fill the terminal.
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
    """A value that no record can hold, such as a timestamp: it has no one way to be written.

    Attributes:
        kind: Its type, for messages.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Real(Unusable):
    """A number that its file holds in binary: it has no one spelling, and can be a score alone.

    Attributes:
        value: The number; it may be infinite, or none at all (NaN).
    """

    value: float


# A file's value: text, a number, true or false, nothing, or several of these.
Value = str | Number | bool | None | Unusable | Sequence["Value"] | Mapping[str, "Value"]
Row = Mapping[str, Value]


def kind_of(value: Value) -> str:
    """What a value is, in words that do not show it."""
    match value:
        case None:
            return "nothing"
        case str():
            return "text"
        case bool():
            return "true or false"
        case Number(written):
            return "an integer" if is_integer(written) else "a number that is no integer"
        case Unusable(kind):
            return kind
        case Mapping():
            return "an object"
    return "a list"


def is_integer(written: str) -> bool:
    """Whether a literal is an integer in its one usual spelling: no sign of +, no -0, no 00."""
    digits = written.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return False
    return digits[0] != "0" or written == "0"


def shown(text: str) -> str:
    """A name or value from a file, safe to print: cut, without line breaks or control characters.

    A terminal obeys control characters, and cannot print half of a surrogate pair.
    """
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut
    )
