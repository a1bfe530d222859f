"""Rows become records; a bad value is reported with its row and column."""

from typing import Any

import pytest

from cloister.data.config import DataConfig
from cloister.data.record_schema import Reading
from cloister.data.records import ChatRecord, Message, RecordKind, TextRecord, TokenRecord
from cloister.data.values import Number, Row, Unusable, Value
from cloister.errors import DataError

COLUMNS = DataConfig()
WHERE = "train.jsonl, row 7"


def parse(row: Row, kind: RecordKind, columns: DataConfig = COLUMNS, *, sites: bool = False) -> Any:
    return Reading(kind, columns, persons=True, sites=sites).record(row, "train.jsonl", 7)


DIGITS = "8" * 20


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("flu", "flu"),
        (" a", " a"),
        ("01", "01"),
        ("1.0", "1.0"),
        ("null", "null"),
        (Number("3"), "3"),
        (Number("0"), "0"),
        (Number("-12"), "-12"),
        (Number(DIGITS), DIGITS),
    ],
)
def test_labels_sites_and_persons_are_what_is_written(value: Value, expected: str) -> None:
    row = {"text": "fever", "label": value, "site": value, "patient": value}
    record = parse(row, "text", DataConfig(person="patient"), sites=True)
    assert record == TextRecord("fever", expected, expected, expected)


@pytest.mark.parametrize("column", ["label", "site", "patient"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Number("1.0"), r"a number that is not an integer \(1\.0\); a"),
        (Number("1e0"), r"a number that is not an integer \(1e0\)"),
        (Number("-0"), r"a number that is not an integer \(-0\)"),
        (Number("NaN"), r"a number that is not an integer \(NaN\)"),
        (Number("9" * 10_000), None),
        ([], "a list; a"),
        (["a"], "a list; a"),
        ({"id": "a"}, "an object; a"),
        (Unusable("timestamp[us]"), r"timestamp\[us\]; a"),
        ("a\ud800", "has half of a surrogate pair"),
        ("", "is empty; every row needs its"),
        (None, r"has no value \(null\); every row needs its"),
    ],
)
def test_what_has_no_one_spelling_names_neither_person_nor_label(
    column: str, value: Value, message: str | None
) -> None:
    row = {"text": "fever", "label": "a", "site": "b", "patient": "c", column: value}
    columns = DataConfig(person="patient")
    if message is None:  # an integer of any length is its digits
        assert parse(row, "text", columns, sites=True) is not None
        return
    with pytest.raises(DataError, match=rf"^{WHERE}: {column} .*{message}"):
        parse(row, "text", columns, sites=True)


@pytest.mark.parametrize(("value", "expected"), [(True, "true"), (False, "false")])
def test_a_label_may_be_true_or_false_but_no_identifier(value: bool, expected: str) -> None:
    assert parse({"text": "fever", "label": value}, "text") == TextRecord("fever", expected)
    with pytest.raises(
        DataError, match=f"^{WHERE}: person is true or false; a person must be text"
    ):
        parse({"text": "x", "label": "a", "person": value}, "text", DataConfig(person="person"))


@pytest.mark.parametrize("column", ["label", "site", "person"])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("1", Number("1"), "an integer here and text in row 7"),
        ("001", Number("80"), "an integer here and text in row 7"),
        (Number("1"), "1", "text here and an integer in row 7"),
    ],
)
def test_a_column_of_texts_and_integers_is_refused_by_both_rows(
    column: str, first: Value, second: Value, message: str
) -> None:
    reading = Reading("text", DataConfig(person="person"), persons=True, sites=True)
    row = {"text": "fever", "label": "a", "site": "b", "person": "c"}
    reading.record({**row, column: first}, "train.jsonl", 7)
    with pytest.raises(DataError, match=rf"^train\.jsonl, row 9: {column} is {message}"):
        reading.record({**row, column: second}, "train.jsonl", 9)


def test_a_public_row_needs_neither_person_nor_site() -> None:
    reading = Reading("text", DataConfig(person="person"), persons=False, sites=False)
    row: Row = {"text": "fever", "label": "a", "person": Number("0.5"), "site": None}
    assert reading.record(row, "test.jsonl", 1) == TextRecord("fever", "a")
    assert reading.columns_read == ("text", "label")


def test_a_sentence_with_its_tags() -> None:
    row = {"tokens": ["chest", "pain"], "tags": ["B-X", "I-X"]}
    assert parse(row, "tokens") == TokenRecord(("chest", "pain"), ("B-X", "I-X"))


def test_a_conversation() -> None:
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "fever", "time": Number("3")},
        {"role": "assistant", "content": "rest"},
    ]
    assert parse({"messages": turns}, "messages") == ChatRecord(
        (Message("system", ""), Message("user", "fever"), Message("assistant", "rest"))
    )


def test_contents_in_parts_and_every_role() -> None:
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [PART, {"type": "text", "text": "pain"}]},
        {"role": "tool", "content": "{}"},
        REPLY,
    ]
    record = parse({"messages": turns}, "messages")
    assert isinstance(record, ChatRecord)
    assert [(m.role, m.content) for m in record.messages] == [
        ("developer", "be brief"),
        ("user", "chest pain"),
        ("tool", "{}"),
        ("assistant", "rest"),
    ]


def test_a_text_in_place_of_turns_is_learnt_whole() -> None:
    columns = DataConfig(messages="speech")
    row = {"speech": "[Enter HAMLET] To be", "person": "p"}
    assert parse(row, "messages", columns) == ChatRecord((), text="[Enter HAMLET] To be")


def test_a_preference_is_two_conversations_with_one_beginning() -> None:
    asked = (Message("user", "fever"),)
    row = {"prompt": "fever", "chosen": "rest", "rejected": "run", "person": "p"}
    expected = ChatRecord(
        (*asked, Message("assistant", "rest")), rejected=(*asked, Message("assistant", "run"))
    )
    assert parse(row, "messages") == expected
    turns = {"prompt": [OPENING], "chosen": [REPLY], "rejected": [{**REPLY, "content": "run"}]}
    assert parse(turns, "messages") == expected
    whole = {"chosen": [OPENING, REPLY], "rejected": [OPENING, {**REPLY, "content": "run"}]}
    assert parse(whole, "messages") == expected
    # A conversation where the recipe says there is one is taken before it.
    assert parse({**row, "messages": [REPLY]}, "messages") == ChatRecord(
        (Message("assistant", "rest"),)
    )


def test_columns_may_have_other_names() -> None:
    columns = DataConfig(text="note", label="icd", site="ward", person="patient")
    row = {"note": "fever", "icd": "J11", "ward": "north", "patient": Number("12"), "text": "other"}
    assert parse(row, "text", columns, sites=True) == TextRecord("fever", "J11", "north", "12")


def test_persons_are_read_only_where_a_column_is_named() -> None:
    record = parse({"text": "fever", "label": "a", "person": "p"}, "text")
    assert record.person is None


@pytest.mark.parametrize("person", [None, ""])
def test_every_row_needs_a_person_where_persons_are_named(person: str | None) -> None:
    row = {"text": "fever", "label": "a", "patient": person}
    with pytest.raises(DataError, match=rf"^{WHERE}: patient .*every row needs its person"):
        parse(row, "text", DataConfig(person="patient"))


OPENING = {"role": "user", "content": "fever"}
REPLY = {"role": "assistant", "content": "rest"}
PART = {"type": "text", "text": "chest "}
IMAGE = {"type": "image", "text": "x"}


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("text", {}, r"no column 'text' \(found: none\); set data.text"),
        ("text", {"body": "x"}, r"no column 'text' \(found: body\); set data.text"),
        ("text", {"text": None, "label": "a"}, r"text has no value \(null\)"),
        ("text", {"text": " \n", "label": "a"}, "text is empty"),
        ("text", {"text": Number("5"), "label": "a"}, "text is an integer; text is needed"),
        ("text", {"text": True, "label": "a"}, "text is true or false; text is needed"),
        ("text", {"text": Unusable("date32[day]")}, r"text is date32\[day\]; text is needed"),
        ("text", {"text": "a\udc00", "label": "a"}, "text has half of a surrogate pair"),
        ("text", {"text": "fever"}, "no column 'label'"),
        ("text", {"text": "fever", "label": ""}, "label is empty; every row needs its label"),
        (
            "text",
            {"\x1b[2J\n\ud800": "fever"},
            r"no column 'text' \(found: \\x1b\[2J\\n\\ud800",
        ),
        ("text", {f"c{i}": "" for i in range(40)}, r"no column 'text' \(found: c0, .*c11, …\)"),
        ("tokens", {"tokens": ["\ud83d"], "tags": ["O"]}, "tokens has half of a surrogate pair"),
        ("tokens", {"tokens": ["a", Number("1")], "tags": ["O", "O"]}, "tokens must be a list of"),
        ("messages", {"messages": [{"role": "user", "content": Number("1")}]}, "turn 1 needs a"),
        ("messages", {"messages": [{"role": "user", "content": "\ud83d"}]}, "messages has half"),
        ("tokens", {"tokens": ["a"]}, "no column 'tags'"),
        ("tokens", {"tokens": "a b", "tags": ["O"]}, "tokens is text, not a list of words"),
        ("tokens", {"tokens": [], "tags": []}, "tokens must be a list of words that is not empty"),
        ("tokens", {"tokens": ["a", None], "tags": ["O", "O"]}, "tokens must be a list of words"),
        ("tokens", {"tokens": ["a"], "tags": [Number("0")]}, "tags must be a list of words"),
        ("tokens", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ("tokens", {"tokens": ["a"], "tags": ["B-"]}, "tag 'B-' is not BIO"),
        ("tokens", {"tokens": ["a"], "tags": ["o"]}, "tag 'o' is not BIO"),
        ("messages", {"text": "x"}, r"no column 'messages' \(found: text\)"),
        ("messages", {"chosen": "a", "rejected": None}, "no column 'messages'"),
        ("messages", {"chosen": "a", "rejected": " "}, "rejected does not end with a reply"),
        ("messages", {"chosen": [OPENING], "rejected": "b"}, "chosen does not end with a reply"),
        ("messages", {"chosen": Number("1"), "rejected": "b"}, "chosen must be a list of turns"),
        ("messages", {"messages": []}, "messages must be a list of turns"),
        ("messages", {"messages": " \n"}, "messages is empty; a conversation or a text is needed"),
        ("messages", {"messages": ' [ {"role": "user"}]'}, "messages is a list written as text"),
        ("messages", {"messages": [OPENING, "rest"]}, "turn 2 needs a role"),
        ("messages", {"messages": [{"role": "bot", "content": ""}]}, "turn 1 needs a role"),
        ("messages", {"messages": [{**OPENING, "content": []}]}, "turn 1 needs a role"),
        ("messages", {"messages": [{**OPENING, "content": [IMAGE]}]}, "turn 1 needs a role"),
        ("messages", {"messages": [{**OPENING, "content": [PART, "a"]}]}, "turn 1 needs a role"),
        ("messages", {"messages": [{"role": [], "content": ""}]}, "turn 1 needs a role"),
        ("messages", {"messages": [{"role": "user"}]}, "turn 1 needs a role"),
        ("messages", {"messages": [OPENING]}, "no turn of the assistant"),
        ("messages", {"messages": [OPENING, {**REPLY, "content": " "}]}, "no turn of the assis"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    kind: RecordKind, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"^{WHERE}: {message}"):
        parse(row, kind)
