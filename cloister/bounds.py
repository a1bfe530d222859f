"""Bounds on what a file may say, written beside each field as `Annotated[int, Between(1, 9)]`.

`cloister.fields` holds every value to them before anything is built from it: sizes in a recipe
come from another party, and what they make a site allocate or compute must end.
"""

from __future__ import annotations

import math
import unicodedata
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
# Characters of a value that is repeated in a message.
SHOWN = 60


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
        lines: Whether it may have line breaks and other control characters.
    """

    most: int
    lines: bool = False

    def __call__(self, value: object) -> bool:
        """Whether a string is allowed; lone surrogates are not, as they have no bytes."""
        assert isinstance(value, str)
        if len(value) > self.most:
            return False
        kinds = {unicodedata.category(character) for character in value}
        return "Cs" not in kinds and (self.lines or "Cc" not in kinds)

    def __str__(self) -> str:
        return f"of at most {self.most:,} characters{'' if self.lines else ' in one line'}"


@dataclass(frozen=True)
class Items:
    """A list of so many values.

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


Bound = Between | Text | Items


def shortened(value: object) -> str:
    """A value for a message, of bounded length whatever it is."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str):
        text = repr(value[: SHOWN + 1])
    elif isinstance(value, list | tuple):
        shown = ", ".join(shortened(item) for item in value[:5])
        return f"[{shown}{', …' if len(value) > 5 else ''}] ({len(value)} values)"
    elif isinstance(value, dict):
        return f"a table of {len(value)} keys"
    else:
        text = repr(value)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}…"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
