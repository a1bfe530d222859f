"""Groups a site's records into privacy units, each of which is drawn, averaged and clipped as one.

A unit is a person with all records, or a record with all of its copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloister.data.records import Record
from cloister.errors import DataError, MisfitError
from cloister.privacy.units import Unit
from cloister.tasks.fit import Limits, Misfit, misfit
from cloister.tasks.task import IGNORE, Example, Task
from cloister.training.packed import PackedUnits
from cloister.training.packed import UnitExamples as UnitExamples

# Reasons for leaving a record out of its unit, beside those of its task (`MisfitError.reason`).
NO_PERSON = "it names no person, where persons are the units"
UNENCODED = "it cannot be encoded"
UNFIT: Mapping[Misfit, str] = {
    "empty": "it has no token",
    "length": "it is longer than the base has positions",
    "token": "a token of it is beyond the base's vocabulary",
}
# Rows of a unit that are tried for each row that may count: some may be unusable, but one unit's
# cost stays bounded.
TRIED = 2
UNLIMITED = Limits(positions=None, vocabulary=None)


@dataclass(frozen=True)
class EncodedUnits:
    """A site's encoded units, with counts for its operator.

    Attributes:
        units: The units in the order of their first record; empty ones stay, and are drawn too.
        left_out: Numbers of records that are in no unit, by reason. True counts, for their owner.
        problems: For each of these, its place among the records (from 1) and its problem; for their
            owner.
        nothing_to_learn: Number of records of which no token is learnt, because they were cut
            before the first one; for their owner.
        unused: Number of rows beyond the largest number that counts in a unit; for their owner.
    """

    units: Sequence[UnitExamples]
    left_out: Mapping[str, int]
    problems: tuple[tuple[int, str], ...]
    nothing_to_learn: int
    unused: int


def encode_units(
    records: Sequence[Record],
    task: Task,
    unit: Unit,
    most: int,
    limits: Limits = UNLIMITED,
) -> EncodedUnits:
    """Encodes records and groups those of one privacy unit.

    Args:
        records: A site's records; private.
        task: The study's task.
        unit: The privacy unit.
        most: Number of rows of one unit that count: the first usable ones of the first
            `rows_tried`. It bounds a unit's cost in time and memory; the clip bounds its influence
            for any number.
        limits: The limits of the base.

    Guarantees:
        Total: it raises for no record, whatever the record holds. A record that cannot be encoded,
        has a label that the study lacks or a token beyond the vocabulary, or names no person where
        persons are the units, is left out of its unit. A unit is a function of its own records
        alone, so records that are left out of one do not change another. A record without a person
        cannot be joined with the person's other records, so it becomes an empty unit: as a unit
        with content it would protect less than a person.

        Copies cost no privacy. Let records be the units, r a record and A(r) the rows made from it
        (r is one of them). They share one `Record.unit`, and each is a function of r and of public
        randomness. A(r) is one unit: it is drawn as a whole, with the plan's q, and its
        contribution is clip(mean of the rows' gradients, C), a vector of norm at most C that
        depends on r alone. So a file with r and one without it give lists of units that differ in
        one unit, and sums that differ by at most C, as without copies (by 2C if r is replaced by
        another record). Sampler, sensitivity and noise are those of the accountant, so ε and δ are
        the same for any number of copies. If copies were units of their own, or clipped one by
        one, r could change the sum by |A(r)|·C, and the stated ε would be false. If persons are
        the units, the argument is the same with all rows of a person as A(r).
    """
    units = PackedUnits()
    problems: list[tuple[int, str, str]] = []
    unused = silent = 0
    for places in groups_of(records, unit):
        examples: list[Example] = []
        tried = 0
        for place in _sources_first(places, records)[: rows_tried(unit, most)]:
            if len(examples) == most:
                break
            tried += 1
            if unit is Unit.PERSON and records[place].person is None:
                problems.append((place + 1, NO_PERSON, NO_PERSON))
                continue
            try:
                examples.append(_encode(records[place], task, limits))
            except MisfitError as error:
                problems.append((place + 1, error.reason, str(error)))
            except Exception as error:  # a tokenizer may raise any error
                problems.append((place + 1, UNENCODED, f"{UNENCODED} ({type(error).__name__})"))
        unused += len(places) - tried
        silent += sum(not _teaches(example, task) for example in examples)
        units.add(tuple(examples))
    problems.sort()
    return EncodedUnits(
        units=units,
        left_out=Counter(reason for _, reason, _ in problems),
        problems=tuple((place, problem) for place, _, problem in problems),
        nothing_to_learn=silent,
        unused=unused,
    )


def _owner(record: Record, place: int, unit: Unit) -> object:
    """Returns the key that the rows of one unit share, and no other row has."""
    name = record.unit if unit is Unit.RECORD else record.person
    return ("alone", place) if name is None else ("named", name)


def _sources_first(places: Sequence[int], records: Sequence[Record]) -> list[int]:
    """Returns a unit's rows: the first of each record, then the second of each, and so on.

    So for a person with copies, other records count before the copies of one.
    """
    rows: Counter[str] = Counter()
    turns = []
    for place in places:
        name = records[place].unit
        turns.append((0 if name is None else rows[name], place))
        rows.update([name] if name is not None else [])
    return [place for _, place in sorted(turns)]


def rows_tried(unit: Unit, most: int) -> int:
    """Returns the largest number of rows of one unit that are encoded.

    Args:
        unit: The privacy unit.
        most: Number of rows of one unit that count.
    """
    return 1 if unit is Unit.RECORD and most == 1 else TRIED * most


def groups_of(records: Sequence[Record], unit: Unit) -> Iterable[Sequence[int]]:
    """Returns the places of each unit's rows, units in the order of their first row."""
    if unit is Unit.RECORD and all(record.unit is None for record in records):
        return ((place,) for place in range(len(records)))
    groups: dict[object, list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault(_owner(record, place, unit), []).append(place)
    return groups.values()


def _encode(record: Record, task: Task, limits: Limits) -> Example:
    example = task.encode(record)
    unfit = misfit(example, limits)
    if unfit is not None:
        raise MisfitError(UNFIT[unfit], UNFIT[unfit])
    return example


def _teaches(example: Example, task: Task) -> bool:
    """Returns whether any token is learnt; a conversation's first token has none before it."""
    if not isinstance(example.target, tuple):
        return True
    learnt = example.target[1:] if task.record_kind == "messages" else example.target
    return any(target != IGNORE for target in learnt)


def unit_examples(
    records: Sequence[Record], encode: Callable[[Record], Example], unit: Unit, most: int
) -> tuple[UnitExamples, ...]:
    """Encodes synthetic records, all of which must be usable; see `encode_units`.

    Raises:
        DataError: A record cannot be encoded, or names no person where persons are the units.
    """
    groups: dict[object, list[Record]] = {}
    for place, record in enumerate(records):
        if unit is Unit.PERSON and record.person is None:
            raise DataError(
                f"record {place + 1} names no person, but privacy.unit is person; set data.person "
                "to the column that does"
            )
        groups.setdefault(_owner(record, place, unit), []).append(record)
    return tuple(tuple(encode(record) for record in group[:most]) for group in groups.values())


def singles(examples: Sequence[Example]) -> list[UnitExamples]:
    """Makes each example a unit of its own."""
    return [(example,) for example in examples]
