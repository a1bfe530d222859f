"""The census counts units and warns about an identifier that stands for many persons."""

import pytest

from cloister.data.census import Census, census
from cloister.data.records import ChatRecord, Message, Record, TextRecord
from cloister.errors import DataError


def people(sizes: dict[str, int]) -> list[Record]:
    return [TextRecord("x", "a", person=name) for name, size in sizes.items() for _ in range(size)]


def ones(count: int) -> dict[str, int]:
    return {f"p{number}": 1 for number in range(1, count + 1)}


def test_each_record_is_a_unit_where_no_person_is_meant() -> None:
    found = census(people({"NA": 5}), "record")
    assert found == Census("record", 5, 5, 1)
    assert str(found) == "5 records, each a privacy unit"


def test_copies_are_counted_with_the_record_that_they_are_made_of() -> None:
    rows = [TextRecord("x", "a", unit=unit) for unit in ["u1", "u2", None, "u1", "u1", None]]
    found = census(rows, "record")
    assert found == Census("record", 6, 4, 3)
    told = "4 records (privacy units) in 6 rows, copies among them: 1.5 a record, at most 3"
    assert str(found) == told
    assert found.to_json()["largest_unit"] == 3


def test_persons_are_counted_with_the_largest() -> None:
    found = census(people({"a": 2, "b": 3, "c": 1}), "person")
    assert (found.records, found.units, found.largest, found.name) == (6, 3, 3, "b")
    assert str(found) == "6 records of 3 persons (privacy units); the largest has 3"
    assert found.to_json() == {
        "unit": "person",
        "records": 6,
        "units": 3,
        "largest_unit": 3,
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("sizes", "unit", "said"),
    [
        ({}, "record", "0 records, each a privacy unit"),
        ({"a": 1}, "record", "1 record, each a privacy unit"),
        ({}, "person", "0 records of 0 persons (privacy units)"),
        ({"a": 1}, "person", "1 record of 1 person (privacy units); the largest has 1"),
    ],
)
def test_none_and_one_are_said_as_such(sizes: dict[str, int], unit: str, said: str) -> None:
    assert str(census(people(sizes), unit)) == said


def test_a_record_without_a_person_is_refused() -> None:
    chat = ChatRecord((Message("assistant", "x"),))
    with pytest.raises(DataError, match="record 2 names no person"):
        census([*people({"a": 1}), chat], "person")


@pytest.mark.parametrize("unit", ["person", "record"])
def test_no_records_are_no_units(unit: str) -> None:
    assert census([], unit) == Census(unit, 0, 0, 0)


@pytest.mark.parametrize(
    "name",
    [
        "NA",
        "n/a",
        "<NA>",
        "#N/A",
        "null",
        "None",
        "NaN",
        "0",
        "000",
        " ",
        "-",
        "--",
        "?",
        "Unknown",
        "a.b",
    ],
)
@pytest.mark.parametrize("others", [1, 20, 300])
def test_an_identifier_that_holds_most_records_is_named(name: str, others: int) -> None:
    found = census(people({**ones(others), name: 2 * others + 4}), "person")
    assert len(found.warnings) == 1
    held, total = 2 * others + 4, 3 * others + 4
    assert f"the identifier {name!r} holds {held} of {total} records" in found.warnings[0]
    assert ("looks like a missing value" in found.warnings[0]) == (name != "a.b")


def test_several_that_look_missing_are_all_named() -> None:
    found = census(people({**ones(400), "NA": 10, "null": 9, "p7x": 8}), "person")
    assert [w.split(" holds")[0] for w in found.warnings] == [
        "the identifier 'NA'",
        "the identifier 'null'",
    ]


def test_all_records_of_one_identifier_are_named_whatever_it_is() -> None:
    assert len(census(people({"p1": 2}), "person").warnings) == 1
    assert census(people({"p1": 1}), "person").warnings == ()


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": 2, "b": 2},
        {"a": 1, "b": 2, "c": 3, "d": 4},
        {"a": 40, "b": 20, "0": 20},
        {**ones(300), "a": 20},
        {"N": 1, "a": 1},
        {"naomi": 3, "b": 1, "c": 1},
        ones(5),
        {"na": 1, "b": 1, "0": 1},
    ],
)
def test_persons_of_usual_sizes_are_no_warning(sizes: dict[str, int]) -> None:
    assert census(people(sizes), "person").warnings == ()


def test_a_warning_is_safe_to_print() -> None:
    (warning,) = census(people({"\x1b[31m\n": 9, "a": 1}), "person").warnings
    assert warning.isprintable()
