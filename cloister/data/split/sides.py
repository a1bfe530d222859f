"""Decides on which side of a split a unit is: by the unit alone, or by the labels of all units.

The difference matters for privacy. Neighbouring data sets differ in one unit. If each unit's side
is a function of that unit alone, the training files of neighbours also differ in that unit only,
and ε is about the file that was split. If sides depend on the labels of all units (`stratified`),
one unit more can move others to another side: ε is then about the units of the training file as
written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cloister.bounds import shortened
from cloister.errors import UsageError

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
# Bits of a hash that are compared with a share: float64 holds this many exactly.
_BITS = 53
# Digits of a date without dashes, and most digits of a time that is a 64-bit integer.
_DATE = len("20240305")
_NUMBERS = frozenset(range(1, 20)) - {_DATE}


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The shares of all units that go to validation and test; the rest is for training.

    Attributes:
        validation: Its share.
        test: Its share.
        salt: Changes the assignment of units; the same salt always gives the same assignment.
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
                f"--validation and --test: {self.validation} and {self.test} given; their sum must "
                "be below 1, to leave units for training"
            )

    def side(self, place: float) -> Side:
        """Returns the side of a unit by its place, from 0 to below 1, in an order of all units."""
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


def hashed(unit: str, shares: Shares) -> Side:
    """Returns a unit's side by a hash of its identifier: no other unit, and no order, matters."""
    return shares.side(_draw(unit, shares.salt))


def folded(unit: str, folds: int, salt: str) -> str:
    """Returns a unit's fold, `fold-1` to `fold-{folds}`, by a hash of its identifier."""
    return f"fold-{int(_draw(unit, salt) * folds) + 1}"


def _draw(unit: str, salt: str) -> float:
    """Returns a number from 0 to below 1, uniform over units under a salt.

    The salt's length is hashed first, so that two different pairs of salt and unit never give the
    same input.
    """
    # Identifiers of damaged files may have lone surrogates; hash them as they are instead of
    # failing.
    parts = f"{len(salt)}:{salt}{unit}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(parts).digest()[:8], "big")
    return (number >> (64 - _BITS)) / float(2**_BITS)


def stratified(labels: Mapping[str, str], shares: Shares) -> dict[str, Side]:
    """Returns sides on which each label has the same share, to within one unit. Couples units.

    Args:
        labels: The label of each unit; see `usual_label`.
        shares: The shares of the sides.

    Returns:
        The side of each unit. Of a label's n units, test gets the nearest integer to n times its
        share; test and validation together get the nearest integer to n times their sum.
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


def stratified_several(labels: Mapping[str, Set[str]], shares: Shares) -> dict[str, Side]:
    """Returns sides on which each of several labels has nearly the same share. Couples units.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD, algorithm 1): the
    label that the fewest remaining units have is dealt first, each of its units to the side that
    lacks most of it. Rare labels are dealt while there is still a choice.

    Args:
        labels: The labels of each unit, none included.
        shares: The shares of the sides.
    """
    share = {"train": 1 - shares.test - shares.validation, "validation": shares.validation}
    share["test"] = shares.test
    waiting = sorted(labels, key=lambda unit: (_draw(unit, shares.salt), unit))
    left: Counter[str] = Counter(label for unit in waiting for label in labels[unit])
    lacking = {side: {label: share[side] * n for label, n in left.items()} for side in SIDES}
    room = {side: share[side] * len(waiting) for side in SIDES}
    sides: dict[str, Side] = {}

    def deal(unit: str, label: str | None) -> None:
        open_sides = [side for side in SIDES if share[side] > 0]
        side = max(open_sides, key=lambda s: (lacking[s][label] if label else 0.0, room[s]))
        sides[unit] = side
        room[side] -= 1
        for own in labels[unit]:
            lacking[side][own] -= 1
            left[own] -= 1

    having: dict[str, list[str]] = {}
    for unit in waiting:
        for label in labels[unit]:
            having.setdefault(label, []).append(unit)
    while +left:
        rarest = min((label for label in left if left[label] > 0), key=lambda one: (left[one], one))
        for unit in having[rarest]:
            if unit not in sides:
                deal(unit, rarest)
    for unit in waiting:
        if unit not in sides:
            deal(unit, None)
    return sides


def _nearest(number: float) -> int:
    """Returns the nearest integer; a half is rounded up."""
    return int(number + 0.5)


def _third(place: int, tests: int, held_out: int) -> Side:
    if place < tests:
        return "test"
    return "validation" if place < held_out else "train"


def usual_label(labels: Iterable[str]) -> str:
    """Returns the most frequent label of a unit's records; of several, the alphabetically first."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def furthest(sides: Iterable[Side]) -> Side:
    """Returns the side of a unit whose records would be on several: test, else validation.

    A unit with any held-out record is held out as a whole, which depends on the unit alone.
    """
    return max(sides, key=SIDES.index)


def by_time(test_from: str, validation_from: str | None) -> Callable[[str], Side]:
    """Makes a function that holds out records from given moments on.

    Args:
        test_from: The first moment of the test side: a date or time (ISO 8601), or an integer if
            records have integers.
        validation_from: The first moment of the validation side; absent: none.

    Returns:
        A function from a record's time to its side.

    Raises:
        UsageError: A moment is neither, or validation begins after test. The returned function
            raises it for a record's time that is neither.
    """
    test = _stated("--test-from", test_from)
    validation = test if validation_from is None else _stated("--validation-from", validation_from)
    if validation[0] != test[0] or validation[1] > test[1]:
        raise UsageError(
            f"--validation-from: {validation_from} given; a moment before --test-from "
            f"({test_from}), in the same form, is needed"
        )

    def side(text: str) -> Side:
        found = moment(text)
        if found[0] != test[0]:
            raise UsageError(f"a {found[0]}, but --test-from is a {test[0]}")
        if found[1] >= test[1]:
            return "test"
        return "validation" if found[1] >= validation[1] else "train"

    return side


def _stated(option: str, text: str) -> tuple[str, float]:
    """Returns the `moment` of an option; of a record's, no message repeats the value."""
    try:
        return moment(text)
    except UsageError as error:
        raise UsageError(f"{option}: {shortened(text)} given: {error}") from None


def moment(text: str) -> tuple[str, float]:
    """Returns the kind of a time, and a number by which times of one kind are compared.

    A date means its midnight; a time without a zone means UTC.

    Raises:
        UsageError: It is neither a number nor a date or time of ISO 8601.
    """
    digits = text.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit()
    if is_number and len(digits) in _NUMBERS:
        return "number", float(int(text))
    try:
        # Python would also read long numbers as dates and times.
        if is_number and len(text) != _DATE:
            raise ValueError
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("neither an integer nor a date such as 2024-03-05") from error
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return "date", zoned.timestamp()


def by_site(test: Sequence[str], validation: Sequence[str]) -> Callable[[str], Side]:
    """Makes a function that holds out whole sites.

    Raises:
        UsageError: No test site is named, or one is named twice.
    """
    if not test:
        raise UsageError("--test-site: missing; name the sites that are held out")
    if twice := set(test) & set(validation):
        raise UsageError(f"--validation-site: {sorted(twice)[0]} is a --test-site too")
    sides: dict[str, Side] = {
        **dict.fromkeys(validation, "validation"),
        **dict.fromkeys(test, "test"),
    }
    return lambda site: sides.get(site, "train")
