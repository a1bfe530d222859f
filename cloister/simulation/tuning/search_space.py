"""The fields that a search varies, and the values that each may have: `--search`.

training.learning_rate=0.1:10:log     any number from 0.1 to 10, even on a log scale
lora.r=4:16                           any integer, as the field is one
training.schedule=constant,warmup-linear    one of several values
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from cloister.bounds import shortened
from cloister.errors import UsageError
from cloister.fields import field_types
from cloister.recipe.read import KINDS
from cloister.simulation.sweep import axis

# Values by field, in the form in which `--set` takes them.
Setting = Mapping[str, str]

# Digits that are tried: a score never tells finer values apart, and people can read these.
DIGITS = 4
# Most settings that a search without ranges of fractions lists, to find those not tried yet.
MOST_LISTED = 10_000
RANGE = re.compile(r"\s*([^:,'\"\[]+):([^:,'\"\[]+?)(:log)?\s*")
# A study's name, data and machine are no settings to choose by a score.
NOT_SEARCHED = ("study", "data", "machine", "tracking")
# The bounds that a score may choose; every other field of [privacy] states the promise.
BOUNDS = ("max_grad_norm", "max_update_norm")


@dataclass(frozen=True)
class Searched:
    """One field of a search.

    Attributes:
        field: `section.key`.
        choices: The values of a list; empty: a range.
        low: The smallest value of a range.
        high: The largest value of a range.
        is_log: Whether the range is searched evenly on a log scale.
        is_integer: Whether the field takes integers only.
    """

    field: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_integer: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """Returns the values at which the field is checked: both ends of a range, or all."""
        return self.choices or (self.text(self.low), self.text(self.high))

    @property
    def size(self) -> float:
        """Returns the number of possible values; ∞ for a range of fractions."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.is_integer else math.inf

    def text(self, value: float | str) -> str:
        """Returns a value in the form of `--set`, rounded to `DIGITS` and inside of the range."""
        if isinstance(value, str):
            return value
        if self.is_integer:
            return str(round(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def number(self, text: str) -> float | None:
        """Returns the number of a value in a range; None: the field has a list of values."""
        return None if self.choices else float(text)

    def includes(self, text: str) -> bool:
        """Returns whether a value, in the form of `--set`, is one that the search tries."""
        if self.choices:
            return text in self.choices
        try:
            number = float(text)
        except ValueError:
            return False
        return self.low <= number <= self.high and (number.is_integer() or not self.is_integer)

    def holds(self, value: Any) -> str | None:
        """Returns a recipe's value in the form of `--set`; None: the search does not include it."""
        if self.choices:
            same = [text for text in self.choices if text.strip("'\"") == _plain(value)]
            return same[0] if same else None
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        return str(round(value)) if self.is_integer else repr(float(value))

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        low, high = (f"{end:g}" for end in (self.low, self.high))
        return f"{low} to {high}{' (log scale)' * self.is_log}{' (integers)' * self.is_integer}"


def read_search(texts: Sequence[str]) -> tuple[Searched, ...]:
    """Reads the fields of a search.

    Args:
        texts: `section.key=LOW:HIGH`, `section.key=LOW:HIGH:log` or `section.key=A,B,…` each.

    Raises:
        UsageError: One is not of that form, is given twice, or must not be chosen by a score.
    """
    if not texts:
        raise UsageError(
            "--search: missing; name at least one field, as in training.learning_rate=0.1:10:log"
        )
    found = tuple(_searched(text) for text in texts)
    names = [one.field for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--search: {twice} given twice; give all of its values in one --search")
    return found


def settings_in_all(searched: Sequence[Searched]) -> float:
    """Returns the number of different settings of a search; ∞ with a range of fractions."""
    return math.prod(one.size for one in searched)


def _searched(text: str) -> Searched:
    target, _, raw = text.partition("=")
    match = RANGE.fullmatch(raw)
    field, values = axis(text, "--search")
    section, _, key = field.partition(".")
    _check_field(section, key, target)
    if match is None:
        if len(set(values)) < 2 or len(set(values)) < len(values):
            raise UsageError(
                f"--search {shortened(text)[1:-1]}: at least two different values, or a range as "
                "in 0.1:10:log, are needed"
            )
        return Searched(field, choices=tuple(values))
    low, high = _end(text, match[1]), _end(text, match[2])
    is_log, is_integer = match[3] is not None, _takes_integers(section, key)
    if is_integer and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"--search {shortened(text)[1:-1]}: {field} takes integers only")
    if low >= high or (is_log and low <= 0):
        needed = "0 < LOW < HIGH" if is_log else "LOW < HIGH"
        raise UsageError(f"--search {shortened(text)[1:-1]}: {needed} is needed in LOW:HIGH")
    return Searched(field, low=low, high=high, is_log=is_log, is_integer=is_integer)


def _check_field(section: str, key: str, given: str) -> None:
    """Refuses a field that a score must not choose."""
    if section not in KINDS:
        raise UsageError(
            f"--search {shortened(given)[1:-1]}: unknown section; known: {', '.join(KINDS)}"
        )
    if section in NOT_SEARCHED:
        raise UsageError(
            f"--search {shortened(given)[1:-1]}: a field of [{section}] is not chosen by a score; "
            "change it with --set"
        )
    if section == "privacy" and key not in BOUNDS:
        raise UsageError(
            f"--search {shortened(given)[1:-1]}: it is a part of the promise, and less privacy "
            f"always scores better; of [privacy] only {' and '.join(BOUNDS)} can be searched"
        )


def _takes_integers(section: str, key: str) -> bool:
    """Returns whether a field's type is an integer; a plug-in's options are taken as given."""
    hint = field_types(KINDS[section]).get(key) if section in KINDS else None
    pending, kinds = [hint], set()
    while pending:
        one = pending.pop()
        pending += [arg for arg in get_args(one) if isinstance(arg, type) or get_args(arg)]
        kinds.add(one)
    return int in kinds and float not in kinds


def _end(text: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"--search {shortened(text)[1:-1]}: {shortened(given)} is not a finite number; a range "
            "is LOW:HIGH or LOW:HIGH:log"
        )
    return value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
