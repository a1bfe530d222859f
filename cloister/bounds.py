"""Bounds on values in a file, written beside each field as `Annotated[int, Between(1, 9)]`.

`cloister.fields` checks every value against them before it is used: sizes in a recipe come from
another party, and a site's memory and time must stay bounded.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# The largest federation that makes sense to declare: ten times the thousand sites at which noise
# at the coordinator is 1.5 times an update (`cloister.privacy.central.SENSIBLE_SITES`).
MOST_SITES = 10_000
# Most records of one site: a billion is more than any country has patients.
MOST_RECORDS = 10**9
# Most rounds: thirty times the project's longest study (346 rounds); the PLD of this many rounds of
# several steps each takes a second.
MOST_ROUNDS = 10_000
# Most steps over all rounds; with more, the third accountant does not check the others
# (`cloister.privacy.accounting.PRV_MOST_STEPS`).
MOST_STEPS = 100_000
# Largest and smallest number: float32 goes to 3·10³⁸, but beyond a million, or below a millionth,
# products of a few such numbers leave the range in which its 24 bits are precise.
SMALL, LARGE = 1e-6, 1e6
# Integers of TOML and of other languages have 64 bits.
LARGEST_INTEGER = 2**63 - 1
# Linux's PATH_MAX.
MOST_PATH = 4096
# Longest name of a column or module: four times that of PostgreSQL (63).
MOST_NAME = 256
# Most characters of a value in a message, and most values of a list.
SHOWN, LISTED = 60, 5
# Marks that change the direction of writing, so that a text is not what it looks like (Boucher and
# Anderson 2021, arXiv:2111.00169). Joiners, which several scripts need, are not among them.
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Between:
    """A finite number from `least` to `most`.

    Attributes:
        least: The smallest that is allowed.
        most: The largest that is allowed.
        below: Whether `most` itself is not allowed.
        or_infinite: Whether infinity is allowed too, if it is given explicitly.
    """

    least: float
    most: float
    below: bool = False
    or_infinite: bool = False

    def __call__(self, value: object) -> bool:
        """Returns whether a number is allowed; NaN is not."""
        assert isinstance(value, int | float)
        if value == math.inf:
            return self.or_infinite
        return self.least <= value <= self.most and not (self.below and value == self.most)

    def __str__(self) -> str:
        end = f"below {_number(self.most)}" if self.below else f"{_number(self.most)}"
        return f"from {_number(self.least)} to {end}{', or inf,' * self.or_infinite}"


@dataclass(frozen=True)
class Text:
    """A string that can be stored and shown.

    Attributes:
        most: Largest number of characters.
        lines: Whether it may have line breaks and other control characters, and marks that change
            the direction of writing.
        least: Smallest number of characters.
    """

    most: int
    lines: bool = False
    least: int = 0

    def __call__(self, value: object) -> bool:
        """Returns whether a string is allowed; lone surrogates are not, as they have no bytes."""
        assert isinstance(value, str)
        if not self.least <= len(value) <= self.most:
            return False
        kinds = {unicodedata.category(character) for character in value}
        shown = kinds.isdisjoint({"Cc", "Zl", "Zp"}) and TURNING.isdisjoint(value)
        return "Cs" not in kinds and (self.lines or shown)

    def __str__(self) -> str:
        size = f"{self.least} to {self.most:,}" if self.least else f"at most {self.most:,}"
        return f"of {size} {'characters' if self.lines else 'visible characters in one line'}"


@dataclass(frozen=True)
class Items:
    """The bounds on a list: its number of values, and those of each value.

    Attributes:
        most: Largest number of values.
    """

    most: int

    def __call__(self, value: object) -> bool:
        """Returns whether a list's length is allowed; its values are not checked."""
        assert isinstance(value, list | tuple)
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"of at most {self.most:,} values"


@dataclass(frozen=True)
class ByName:
    """The bounds on a table of values by name, kept as pairs in order of the names.

    Attributes:
        most: Largest number of names.
    """

    most: int

    def __call__(self, value: object) -> bool:
        """Returns whether a table's length is allowed; its values are not checked."""
        assert isinstance(value, dict | tuple)
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"for at most {self.most:,} names"


Bound = Between | Text | Items | ByName


def shortened(value: object, *, inside: bool = False) -> str:
    """Returns a value for a message: of bounded length, with control characters escaped.

    Args:
        value: The user's value.
        inside: Whether it is in a list; for a list in a list only its length is shown.
    """
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        text = repr(value[: SHOWN + 1])
    elif isinstance(value, list | tuple):
        if inside:
            return f"a list of {len(value)}"
        shown = ", ".join(shortened(item, inside=True) for item in value[:LISTED])
        return f"[{shown}{', …' if len(value) > LISTED else ''}] ({len(value)} values)"
    elif isinstance(value, dict):
        return f"a table of {len(value)} keys"
    else:
        text = repr(value)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}…"


def listed(names: Sequence[str]) -> str:
    """Returns names for a message: of bounded length, with control characters escaped."""
    shown = ", ".join(
        name if len(name) <= SHOWN and name.isprintable() else shortened(name)[1:-1]
        for name in names[:LISTED]
    )
    more = len(names) - LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
