"""Records become units, one by one or per person; no record can stop it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.errors import DataError, MisfitError
from cloister.privacy.units import Unit
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.fit import Limits
from cloister.tasks.task import Example, Task
from cloister.training.units import (
    NO_PERSON,
    UNENCODED,
    UNFIT,
    UnitExamples,
    encode_units,
    rows_tried,
    unit_examples,
)
from tests.support.models import VOCABULARY, word_tokenizer

RECORDS = [
    TextRecord("a", "x", person="p"),
    TextRecord("b", "x", person="q"),
    TextRecord("c", "x", person="p"),
    TextRecord("d", "x", person="p"),
]


def encode(record: Record) -> Example:
    assert isinstance(record, TextRecord)
    return Example((ord(record.text),), 0)


@dataclass
class Letters:
    """A task whose tokens are letters; `broken` says what it does with some of them."""

    broken: Callable[[str], None] = lambda text: None
    kind: TaskKind = "sequence-classification"

    def encode(self, record: Record) -> Example:
        assert isinstance(record, TextRecord)
        self.broken(record.text)
        return encode(record)


def spelt(units: tuple[UnitExamples, ...]) -> list[str]:
    return ["".join(chr(example.input_ids[0]) for example in one) for one in units]


def letters(unit: Unit, most: int, task: Letters | None = None) -> list[str]:
    return spelt(encode_units(RECORDS, task or Letters(), unit, most).units)  # type: ignore[arg-type]


def test_each_record_is_a_unit_of_its_own() -> None:
    assert letters(Unit.RECORD, 1) == ["a", "b", "c", "d"]


def test_a_person_s_records_are_one_unit_of_at_most_so_many() -> None:
    assert letters(Unit.PERSON, 8) == ["acd", "b"]
    assert letters(Unit.PERSON, 2) == ["ac", "b"]
    assert encode_units(RECORDS, Letters(), Unit.PERSON, 2).unused == 1  # type: ignore[arg-type]


# Copies of `a` and of `c`, apart from each other; p has all of both, and b is q's alone.
MADE = [
    TextRecord("a", "x", person="p", unit="u1"),
    TextRecord("b", "x", person="q"),
    TextRecord("A", "x", person="p", unit="u1"),
    TextRecord("c", "x", person="p", unit="u2"),
    TextRecord("C", "x", person="p", unit="u2"),
    TextRecord("a", "x", person="p", unit="u1"),
]


def made(unit: Unit, most: int, broken: Callable[[str], None] = lambda text: None) -> list[str]:
    return spelt(encode_units(MADE, Letters(broken), unit, most).units)  # type: ignore[arg-type]


def test_a_record_and_its_copies_are_one_unit_of_at_most_so_many_rows() -> None:
    assert made(Unit.RECORD, 8) == ["aAa", "b", "cC"]
    assert made(Unit.RECORD, 2) == ["aA", "b", "cC"]
    found = encode_units(MADE, Letters(), Unit.RECORD, 1)  # type: ignore[arg-type]
    assert (spelt(found.units), found.unused) == (["a", "b", "c"], 3)


def test_a_person_s_copies_stay_the_person_s_and_other_records_come_first() -> None:
    assert made(Unit.PERSON, 8) == ["acACa", "b"]
    assert made(Unit.PERSON, 2) == ["ac", "b"]


def test_a_copy_takes_the_place_of_a_row_that_cannot_be_used() -> None:
    def broken(text: str) -> None:
        if text == "a":
            raise MisfitError("a reason", "a")

    assert made(Unit.RECORD, 2, broken) == ["A", "b", "cC"]
    assert made(Unit.RECORD, 1, broken) == ["", "b", "c"]  # one row is tried where one counts


@pytest.mark.parametrize(
    ("unit", "most", "tried"), [(Unit.RECORD, 1, 1), (Unit.RECORD, 3, 6), (Unit.PERSON, 1, 2)]
)
def test_what_is_encoded_of_a_unit_is_bounded(unit: Unit, most: int, tried: int) -> None:
    tries: list[str] = []

    def broken(text: str) -> None:
        tries.append(text)
        raise MisfitError("a reason", "x")

    rows = [TextRecord("x", "x", person="p", unit="u")] * 20
    found = encode_units(rows, Letters(broken), unit, most)  # type: ignore[arg-type]
    assert (len(tries), len(found.units)) == (tried, 1)
    assert rows_tried(unit, most) == tried


def of_one_person(kind: TaskKind) -> list[Record]:
    """Records that differ in all that a record can differ in, but for whose they are."""
    if kind == "sequence-classification":
        return [
            TextRecord(text, label, site, "p")
            for text in ("pain", "chest pain at rest", "fever " * 40, "")
            for label in ("X", "Y", "Z")
            for site in (None, "one", "two")
        ]
    if kind == "token-classification":
        return [
            TokenRecord(words, (tag,) * len(words), site, "p")
            for words in (("pain",), ("chest", "pain"), ("fever",) * 40)
            for tag in ("O", "B-X", "B-Y", "B-Z")
            for site in (None, "one")
        ]
    ask, reply = Message("user", "pain"), Message("assistant", "chest pain")
    turns = [
        (ask, reply),
        (Message("system", "rest"), ask, reply),
        (ask, reply, ask, reply),
        (Message("user", "fever " * 40), reply),
        (reply,),
        (ask, ask, reply),
    ]
    return [ChatRecord(messages, site, "p") for messages in turns for site in (None, "one")]


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification", "causal-lm"])
def test_nothing_but_the_person_says_which_records_are_one_unit(kind: TaskKind) -> None:
    """A person's influence is bounded once, whatever labels, lengths and roles they have."""
    task, own = task_of(kind), of_one_person(kind)
    found = encode_units(own, task, Unit.PERSON, 1000, Limits(None, VOCABULARY))
    assert len(found.units) == 1
    assert len(found.units[0]) == len(own) - found.left_out.total()  # type: ignore[attr-defined]
    assert len(found.units[0]) > 3
    others = [replace(record, person=name) for name in "qr" for record in own]
    mixed = [record for same in zip(own, *[iter(others)] * 2, strict=True) for record in same]
    assert encode_units(mixed, task, Unit.PERSON, 1000, Limits(None, VOCABULARY)).units == (
        tuple(found.units) * 3
    )
    for without in (own, *([r for r in mixed if r.person != name] for name in "pqr")):
        units = encode_units(without, task, Unit.PERSON, 1000, Limits(None, VOCABULARY)).units
        assert units == tuple(found.units) * (1 if without is own else 2)


def test_synthetic_records_must_all_be_usable() -> None:
    assert spelt(unit_examples(RECORDS, encode, Unit.PERSON, 2)) == ["ac", "b"]
    with pytest.raises(DataError, match="record 2 names no person"):
        unit_examples([RECORDS[0], TextRecord("e", "x")], encode, Unit.PERSON, 8)


def test_a_record_without_a_person_is_an_empty_unit_and_in_no_one_else_s() -> None:
    records = [RECORDS[0], TextRecord("e", "x"), TextRecord("f", "x"), *RECORDS[1:]]
    found = encode_units(records, Letters(), Unit.PERSON, 8)  # type: ignore[arg-type]
    assert spelt(found.units) == ["acd", "", "", "b"]
    assert found.left_out == {NO_PERSON: 2}
    assert [place for place, _ in found.problems] == [2, 3]


RAISED = [
    MisfitError("a reason", "a b c"),
    DataError("what it holds"),
    ValueError("what it holds"),
    KeyError("what it holds"),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    UnicodeEncodeError("a", "b", 0, 1, "c"),
    AssertionError(),
    OverflowError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("unit", list(Unit))
def test_whatever_a_record_raises_leaves_it_out_alone(unit: Unit, error: Exception) -> None:
    def broken(text: str) -> None:
        if text in "bc":
            raise error

    found = encode_units(RECORDS, Letters(broken), unit, 8)  # type: ignore[arg-type]
    assert spelt(found.units) == (["a", "", "", "d"] if unit is Unit.RECORD else ["ad", ""])
    reason = "a reason" if isinstance(error, MisfitError) else UNENCODED
    assert found.left_out == {reason: 2}
    assert [place for place, _ in found.problems] == [2, 3]
    # What another library says of a record may hold it, and the operator's log is no place for it.
    assert all("what it holds" not in problem for _, problem in found.problems)


def test_a_person_s_later_records_take_the_place_of_those_left_out() -> None:
    def broken(text: str) -> None:
        if text == "a":
            raise MisfitError("a reason", "a")

    assert letters(Unit.PERSON, 2, Letters(broken)) == ["cd", "b"]


@pytest.mark.parametrize("broken_ones", [0, 3, 10_000])
def test_a_person_costs_no_more_than_so_many_tries(broken_ones: int) -> None:
    tries: list[str] = []

    def broken(text: str) -> None:
        tries.append(text)
        if text == "x":
            raise MisfitError("a reason", "x")

    person = [TextRecord(text, "x", person="p") for text in "x" * broken_ones + "a" * 10]
    found = encode_units(person, Letters(broken), Unit.PERSON, 4)  # type: ignore[arg-type]
    assert len(tries) <= 8
    assert spelt(found.units) == ["" if broken_ones > 8 else "aaaa"]
    assert found.unused == len(person) - len(tries)


@pytest.mark.parametrize(
    ("vocabulary", "positions", "reason"),
    [(ord("c"), None, UNFIT["token"]), (None, 0, UNFIT["length"])],
)
def test_what_a_base_cannot_take_is_left_out(
    vocabulary: int | None, positions: int | None, reason: str
) -> None:
    task = Letters()
    found = encode_units(RECORDS, task, Unit.RECORD, 1, Limits(positions, vocabulary))  # type: ignore[arg-type]
    assert spelt(found.units)[2] == ""
    assert set(found.left_out) == {reason}


WEIRD = ["", " ", "\x00", "\ud800", "a" * 100_000, "￿😀‮", "[CLS] [SEP]", "{{ messages }}"]
TASKS: dict[TaskKind, Callable[[str], Record]] = {
    "sequence-classification": lambda text: TextRecord(text, "X"),
    "token-classification": lambda text: TokenRecord((text, text), ("B-X", "O")),
    "causal-lm": lambda text: ChatRecord((Message("user", text), Message("assistant", text))),
}


def task_of(kind: TaskKind, max_length: int = 16) -> Task:
    return build_task(TaskConfig(kind=kind, max_length=max_length), ("X", "Y"), word_tokenizer())


@pytest.mark.parametrize("kind", TASKS)
def test_no_text_stops_any_task_nor_changes_another_record(kind: TaskKind) -> None:
    task, make = task_of(kind), TASKS[kind]
    usual = make("chest pain")
    alone = encode_units([usual], task, Unit.RECORD, 1, Limits(None, VOCABULARY)).units[0]
    records = [record for text in WEIRD for record in (make(text), usual)]
    found = encode_units(records, task, Unit.RECORD, 1, Limits(None, VOCABULARY))
    assert len(found.units) == len(records)
    assert set(found.units[1::2]) == {alone}
    assert alone != ()


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_a_label_that_the_study_lacks_leaves_the_record_out(kind: TaskKind) -> None:
    other: Record = (
        TextRecord("rash", "Z")
        if kind == "sequence-classification"
        else TokenRecord(("rash",), ("B-Z",))
    )
    found = encode_units([other], task_of(kind), Unit.RECORD, 1)
    assert found.units == ((),)
    assert found.left_out == {"its label is not among the study's": 1}


def test_conversations_that_are_cut_before_their_first_reply_are_counted() -> None:
    make = TASKS["causal-lm"]
    records = [ChatRecord((Message("user", "rash " * 30), Message("assistant", "rest")))] * 3
    found = encode_units([*records, make("rest")], task_of("causal-lm"), Unit.RECORD, 1)
    assert found.nothing_to_learn == 3
    assert found.left_out == {}
    assert all(found.units)
