"""Records become units: one by one, or a person's together."""

import pytest

from cloister.data.records import Record, TextRecord
from cloister.errors import DataError
from cloister.privacy.units import Unit
from cloister.tasks.task import Example
from cloister.training.units import unit_examples

RECORDS = [
    TextRecord("a", "x", person="p"),
    TextRecord("b", "x", person="q"),
    TextRecord("c", "x", person="p"),
    TextRecord("d", "x", person="p"),
]


def encode(record: Record) -> Example:
    assert isinstance(record, TextRecord)
    return Example((ord(record.text),), 0)


def letters(unit: Unit, most: int) -> list[str]:
    units = unit_examples(RECORDS, encode, unit, most)
    return ["".join(chr(example.input_ids[0]) for example in one) for one in units]


def test_each_record_is_a_unit_of_its_own() -> None:
    assert letters(Unit.RECORD, 1) == ["a", "b", "c", "d"]


def test_a_person_s_records_are_one_unit_of_at_most_so_many() -> None:
    assert letters(Unit.PERSON, 8) == ["acd", "b"]
    assert letters(Unit.PERSON, 2) == ["ac", "b"]


def test_a_record_without_a_person_is_refused() -> None:
    with pytest.raises(DataError, match="record 2 names no person"):
        unit_examples([RECORDS[0], TextRecord("e", "x")], encode, Unit.PERSON, 8)
