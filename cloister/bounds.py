"""Bounds on what a file may say, written beside each field as `Annotated[int, Between(1, 9)]`.

`cloister.fields` holds every value to them before anything is built from it: sizes in a recipe
come from another party, and what they make a site allocate or compute must end.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# The largest federation that makes sense to declare: ten times the thousand sites at which noise
# at the coordinator is 1.5 times an update (`cloister.privacy.central.SENSIBLE_SITES`).
MOST_SITES = 10_000
# Of one site: a billion is more than any country's patients.
MOST_RECORDS = 10**9
# Thirty times the longest study of ours (346 rounds), and the PLD of so many rounds of several
# steps each is composed in a second.
MOST_ROUNDS = 10_000
# Steps over all rounds; beyond, the third accountant does not check the others
# (`cloister.privacy.accounting.PRV_MOST_STEPS`).
MOST_STEPS = 100_000
# float32 has 3·10³⁸; beyond a million, or below a millionth, products of a few such numbers leave
# the range in which its 24 bits mean anything.
SMALL, LARGE = 1e-6, 1e6
# TOML's integers, and every language's, have 64 bits.
LARGEST_INTEGER = 2**63 - 1
# Linux's PATH_MAX.
MOST_PATH = 4096
# Names of columns and modules: four times the longest that we know of (PostgreSQL allows 63).
MOST_NAME = 256
# Characters of a value that is repeated in a message, and values of a list.
SHOWN, LISTED = 60, 5
# Marks that turn the direction of writing, so that a text is not what it looks like (Boucher and
# Anderson 2021, arXiv:2111.00169). Joiners, which several scripts need, are none of them.
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Between:
    """A finite number from `least` to `most`.

    Attributes:
        least: The smallest that is allowed.
        most: The largest that is allowed.
        below: Whether `most` itself is not allowed.
        or_infinite: Whether infinity is allowed besides, where it must be stated to be meant.
    """

    least: float
    most: float
    below: bool = False
    or_infinite: bool = False

    def __call__(self, value: object) -> bool:
        """Whether a number is allowed; NaN is not."""
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
        most: Characters.
        lines: Whether it may have line breaks and other control characters, and marks that turn the
            direction of writing.
        least: Characters, at least.
    """

    most: int
    lines: bool = False
    least: int = 0

    def __call__(self, value: object) -> bool:
        """Whether a string is allowed; lone surrogates are not, as they have no bytes."""
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
        most: Values.
    """

    most: int

    def __call__(self, value: object) -> bool:
        """Whether a list is allowed, whatever its values are."""
        assert isinstance(value, list | tuple)
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"of at most {self.most:,} values"


@dataclass(frozen=True)
class ByName:
    """The bounds on a table of values by name, kept as pairs in order of the names.

    Attributes:
        most: Names.
    """

    most: int

    def __call__(self, value: object) -> bool:
        """Whether a table is allowed, whatever its values are."""
        assert isinstance(value, dict | tuple)
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"for at most {self.most:,} names"


Bound = Between | Text | Items | ByName


def shortened(value: object, *, inside: bool = False) -> str:
    """A value for a message: of bounded length whatever it is, and no character of it acts.

    Args:
        value: As it was given.
        inside: Whether it stands in a list; of a list in a list only its length is told.
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
    """Names for a message: of bounded length however many there are, and no character acts."""
    shown = ", ".join(
        name if len(name) <= SHOWN and name.isprintable() else shortened(name)[1:-1]
        for name in names[:LISTED]
    )
    more = len(names) - LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
