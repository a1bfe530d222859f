"""Privacy units of a site's records: each is drawn, averaged and clipped as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloister.data.records import Record
from cloister.errors import DataError, MisfitError
from cloister.privacy.units import Unit
from cloister.tasks.fit import Limits, Misfit, misfit
from cloister.tasks.task import IGNORE, Example, Task

# All records of one unit that count. None: a unit whose records cannot be used; it is drawn like
# any other and contributes zero.
UnitExamples = tuple[Example, ...]

# Why a record is left out of its unit, beside what its task says (`MisfitError.reason`).
NO_PERSON = "it names no person, where persons are the units"
UNENCODED = "it cannot be encoded"
UNFIT: Mapping[Misfit, str] = {
    "empty": "it has no token",
    "length": "it is longer than the base has positions",
    "token": "a token of it is beyond the base's vocabulary",
}
# Records of a person that are tried for each one that may count, so that some may be unusable and
# one person's cost is still bounded.
TRIED = 2
UNLIMITED = Limits(positions=None, vocabulary=None)


@dataclass(frozen=True)
class EncodedUnits:
    """A site's encoded units, with counts for its operator.

    Attributes:
        units: In the order of their first record; empty ones stay, and are drawn like any other.
        left_out: Records that are in no unit, by reason. A true number, for whoever owns them.
        problems: Of these, the place among the records (from 1) and what is wrong; likewise.
        nothing_to_learn: Records in a unit of which no token is learnt, because they were cut
            before the first; likewise.
        unused: Records beyond the most that count of a person; likewise.
    """

    units: tuple[UnitExamples, ...]
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
        records: A site's; private.
        task: The study's task.
        unit: Whose presence is hidden.
        most: Records of one person that count: the first so many that can be used, of the first
            TRIED times as many. It bounds a person's cost in time and memory; its influence is
            bounded by the clip whatever it is.
        limits: What the base can take.

    Guarantees:
        Total: it raises for no record, whatever the record holds. A record that cannot be encoded,
        has a label that the study lacks or a token beyond the vocabulary, or names no person where
        persons are the units, is left out of its unit. A unit follows from its own records alone,
        so what is left out of one changes no other. A record without a person belongs to nobody
        whose other records are known, so it makes an empty unit of its own: as a person's it would
        hide less than a person.
    """
    groups: dict[object, list[int]] = {}
    for place, record in enumerate(records):
        alone = unit is Unit.RECORD or record.person is None
        groups.setdefault(("record", place) if alone else record.person, []).append(place)
    units: list[UnitExamples] = []
    problems: list[tuple[int, str, str]] = []
    unused = 0
    for places in groups.values():
        examples: list[Example] = []
        tried = 0
        for place in places[: TRIED * most]:
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
            except Exception as error:  # a tokenizer may raise whatever Python does
                problems.append((place + 1, UNENCODED, f"{UNENCODED} ({type(error).__name__})"))
        unused += len(places) - tried
        units.append(tuple(examples))
    problems.sort()
    return EncodedUnits(
        units=tuple(units),
        left_out=Counter(reason for _, reason, _ in problems),
        problems=tuple((place, problem) for place, _, problem in problems),
        nothing_to_learn=sum(not _teaches(e, task) for examples in units for e in examples),
        unused=unused,
    )


def _encode(record: Record, task: Task, limits: Limits) -> Example:
    example = task.encode(record)
    unfit = misfit(example, limits)
    if unfit is not None:
        raise MisfitError(UNFIT[unfit], UNFIT[unfit])
    return example


def _teaches(example: Example, task: Task) -> bool:
    """Whether any of an example's tokens is learnt; the first of a conversation follows nothing."""
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
    if unit is Unit.RECORD:
        return tuple((encode(record),) for record in records)
    persons: dict[str, list[Record]] = {}
    for number, record in enumerate(records, 1):
        if record.person is None:
            raise DataError(
                f"record {number} names no person, and privacy.unit is person: name the column as "
                "data.person"
            )
        persons.setdefault(record.person, []).append(record)
    return tuple(tuple(encode(record) for record in person[:most]) for person in persons.values())


def singles(examples: Sequence[Example]) -> list[UnitExamples]:
    """Makes each example a unit of its own."""
    return [(example,) for example in examples]
