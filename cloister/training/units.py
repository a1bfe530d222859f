"""From a site's records to its privacy units: what is drawn, averaged and clipped as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloister.data.records import Record
from cloister.errors import DataError
from cloister.privacy.units import Unit
from cloister.tasks.task import Example

# All records of one unit that count. None: a unit whose records cannot be used; it is drawn like
# any other and contributes zero.
UnitExamples = tuple[Example, ...]


def unit_examples(
    records: Sequence[Record], encode: Callable[[Record], Example], unit: Unit, most: int
) -> tuple[UnitExamples, ...]:
    """Encodes records, together where they are one unit's.

    Args:
        records: A site's; private.
        encode: A task's.
        unit: Whose presence is hidden.
        most: Records of one person that count: the first so many. It bounds a person's cost in
            time and memory; its influence is bounded by the clip whatever it is.

    Returns:
        Units in the order of their first record. The column that names persons goes no further.

    Raises:
        DataError: A record names no person where persons are the units.
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
    """Each example as a unit of its own."""
    return [(example,) for example in examples]
