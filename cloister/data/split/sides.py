"""Which side of a split a unit is on: a function of the unit alone, or of the labels of all.

Under privacy the difference matters. Neighbouring data sets differ in one unit. Where each unit's
side follows from that unit alone, the training files of neighbours differ in that unit too, and ε
is about the file that was split. Where sides follow from the labels of all units (`stratified`),
one unit more can move others across: ε is then about the units of the training file as written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cloister.errors import UsageError

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
# Bits of a hash that are compared with a share: float64 holds so many exactly.
_BITS = 53
# Digits of a date without dashes, and of an integer of 64 bits that is a time.
_DATE = len("20240305")
_NUMBERS = frozenset(range(1, 20)) - {_DATE}


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The parts of all units that go to validation and test; the rest is trained on.

    Attributes:
        validation: Its share.
        test: Its share.
        salt: Another one deals the units anew; the same one always deals them alike.
    """

    validation: float = 0.0
    test: float = 0.2
    salt: str = ""

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"--{name}: {getattr(self, name)} given; a share of at least 0 and below 1 is "
                    "needed"
                )
        if self.validation + self.test >= 1:
            raise UsageError(
                f"--validation and --test: {self.validation} and {self.test} given; together they "
                "must leave something to train on"
            )

    def side(self, place: float) -> Side:
        """The side of a unit at a place from 0 to below 1 in a row of all units."""
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


def hashed(unit: str, shares: Shares) -> Side:
    """The side of a unit by a hash of its identifier: of no other unit, and of no order."""
    return shares.side(_draw(unit, shares.salt))


def folded(unit: str, folds: int, salt: str) -> str:
    """The fold of a unit by a hash of its identifier: `fold-1` to `fold-` and their number."""
    return f"fold-{int(_draw(unit, salt) * folds) + 1}"


def _draw(unit: str, salt: str) -> float:
    """A number from 0 to below 1, uniform over units under a salt.

    The salt's length comes first, so that no salt and unit hash as another salt and unit.
    """
    # Halves of surrogate pairs, which identifiers of damaged files have, are hashed as they are.
    parts = f"{len(salt)}:{salt}{unit}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(parts).digest()[:8], "big")
    return (number >> (64 - _BITS)) / float(2**_BITS)


def stratified(labels: Mapping[str, str], shares: Shares) -> dict[str, Side]:
    """Sides with each label's share on each, to within one unit. Couples units.

    Args:
        labels: Of each unit; see `usual_label`.
        shares: Of all units.

    Returns:
        The side of each unit. Of a label with n units, test gets the nearest integer to n times its
        share, and so do test and validation together.
    """
    strata: dict[str, list[str]] = {}
    for unit, label in labels.items():
        strata.setdefault(label, []).append(unit)
    sides: dict[str, Side] = {}
    for units in strata.values():
        units.sort(key=lambda unit: (_draw(unit, shares.salt), unit))
        tests = _nearest(shares.test * len(units))
        held_out = _nearest((shares.test + shares.validation) * len(units))
        for place, unit in enumerate(units):
            sides[unit] = _third(place, tests, held_out)
    return sides


def _nearest(number: float) -> int:
    """The nearest integer, of two the greater one."""
    return int(number + 0.5)


def _third(place: int, tests: int, held_out: int) -> Side:
    if place < tests:
        return "test"
    return "validation" if place < held_out else "train"


def usual_label(labels: Iterable[str]) -> str:
    """The label that most of a unit's records have; of several the first in alphabetical order."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def furthest(sides: Iterable[Side]) -> Side:
    """The side of a unit whose records would lie on several: test, else validation.

    A unit with any held-out record is held out as a whole, which follows from the unit alone.
    """
    return max(sides, key=SIDES.index)


def by_time(test_from: str, validation_from: str | None) -> Callable[[str], Side]:
    """Sides by a record's time: from some moments on it is held out.

    Args:
        test_from: The first moment of the test side: a date or time (ISO 8601), or an integer
            where records have integers.
        validation_from: The first moment of the validation side; absent: none.

    Returns:
        The side of a record by its time.

    Raises:
        UsageError: A moment is neither, or validation begins after test. So does the returned
            function for a record's time.
    """
    test = moment(test_from)
    validation = test if validation_from is None else moment(validation_from)
    if validation[0] != test[0] or validation[1] > test[1]:
        raise UsageError(
            f"--validation-from: {validation_from} given; a moment before --test-from "
            f"({test_from}), written likewise, is needed"
        )

    def side(text: str) -> Side:
        found = moment(text)
        if found[0] != test[0]:
            raise UsageError(f"a {found[0]}, and --test-from is a {test[0]}")
        if found[1] >= test[1]:
            return "test"
        return "validation" if found[1] >= validation[1] else "train"

    return side


def moment(text: str) -> tuple[str, float]:
    """A time in a form that can be compared: what it is, and its number.

    A date begins at its midnight; a time without a zone is taken for UTC.

    Raises:
        UsageError: It is neither a number nor a date or time of ISO 8601.
    """
    digits = text.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit()
    if is_number and len(digits) in _NUMBERS:
        return "number", float(int(text))
    try:
        # Python reads dates and times from twenty digits too, whatever they are.
        if is_number and len(text) != _DATE:
            raise ValueError
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("neither an integer nor a date such as 2024-03-05 is given") from error
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return "date", zoned.timestamp()


def by_site(test: Sequence[str], validation: Sequence[str]) -> Callable[[str], Side]:
    """Sides by a record's site: some sites are held out as a whole.

    Raises:
        UsageError: No test site is named, or one is named twice.
    """
    if not test:
        raise UsageError("--test-site: none given; name the sites that are held out")
    if twice := set(test) & set(validation):
        raise UsageError(f"--validation-site: {sorted(twice)[0]} is a --test-site too")
    sides: dict[str, Side] = {
        **dict.fromkeys(validation, "validation"),
        **dict.fromkeys(test, "test"),
    }
    return lambda site: sides.get(site, "train")
