"""Rows become records, and what is wrong with one is named with its place and column."""

from typing import Any

import pytest

from cloister.data.config import DataConfig
from cloister.data.records import ChatRecord, Message, RecordKind, TextRecord, TokenRecord
from cloister.data.schema import parse
from cloister.errors import DataError

COLUMNS = DataConfig()
WHERE = "train.jsonl, row 7"


@pytest.mark.parametrize(
    ("label", "expected"), [("flu", "flu"), (3, "3"), (0, "0"), (True, "True"), (" a", " a")]
)
def test_a_text_with_its_label(label: object, expected: str) -> None:
    record = parse({"text": "fever", "label": label, "site": 4}, "text", COLUMNS, WHERE)
    assert record == TextRecord("fever", expected, site="4")


def test_a_sentence_with_its_tags() -> None:
    row = {"tokens": ["chest", "pain"], "tags": ["B-X", "I-X"], "site": ""}
    assert parse(row, "tokens", COLUMNS, WHERE) == TokenRecord(("chest", "pain"), ("B-X", "I-X"))


def test_a_conversation() -> None:
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "fever", "time": 3},
        {"role": "assistant", "content": "rest"},
    ]
    assert parse({"messages": turns}, "messages", COLUMNS, WHERE) == ChatRecord(
        (Message("system", ""), Message("user", "fever"), Message("assistant", "rest"))
    )


def test_columns_may_have_other_names() -> None:
    columns = DataConfig(text="note", label="icd", site="ward", person="patient")
    row = {"note": "fever", "icd": "J11", "ward": "north", "patient": 12, "text": "other"}
    assert parse(row, "text", columns, WHERE) == TextRecord("fever", "J11", "north", "12")


def test_persons_are_read_only_where_a_column_is_named() -> None:
    record = parse({"text": "fever", "label": "a", "person": "p"}, "text", COLUMNS, WHERE)
    assert record.person is None


@pytest.mark.parametrize("person", [None, ""])
def test_every_row_needs_a_person_where_persons_are_named(person: str | None) -> None:
    row = {"text": "fever", "label": "a", "patient": person}
    with pytest.raises(DataError, match=rf"^{WHERE}: no 'patient'"):
        parse(row, "text", DataConfig(person="patient"), WHERE)


OPENING = {"role": "user", "content": "fever"}
REPLY = {"role": "assistant", "content": "rest"}


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("text", {}, r"no column 'text' \(found: none\); set data.text"),
        ("text", {"body": "x"}, r"no column 'text' \(found: body\); set data.text"),
        ("text", {"text": None, "label": "a"}, r"no column 'text' \(found: label\)"),
        ("text", {"text": " \n", "label": "a"}, "text is empty"),
        ("text", {"text": 5, "label": "a"}, "text is empty or no text"),
        ("text", {"text": "fever"}, "no column 'label'"),
        ("text", {"text": "fever", "label": ""}, "label is ''; a label is needed"),
        ("text", {"text": "fever", "label": 0.5}, "label is 0.5; a label"),
        ("text", {"text": "fever", "label": ["a"]}, r"label is \['a'\]"),
        ("tokens", {"tokens": ["a"]}, "no column 'tags'"),
        ("tokens", {"tokens": "a b", "tags": ["O"]}, "tokens is text, not a list of words"),
        ("tokens", {"tokens": [], "tags": []}, "tokens must be a list of words, and not empty"),
        ("tokens", {"tokens": ["a", None], "tags": ["O", "O"]}, "tokens must be a list of words"),
        ("tokens", {"tokens": ["a"], "tags": [0]}, "tags must be a list of words"),
        ("tokens", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ("tokens", {"tokens": ["a"], "tags": ["S-X"]}, "tag 'S-X' is not BIO"),
        ("tokens", {"tokens": ["a"], "tags": ["B-"]}, "tag 'B-' is not BIO"),
        ("tokens", {"tokens": ["a"], "tags": ["o"]}, "tag 'o' is not BIO"),
        ("messages", {"text": "x"}, r"no column 'messages' \(found: text\)"),
        ("messages", {"messages": []}, "messages must be a list of turns"),
        ("messages", {"messages": "fever"}, "messages must be a list of turns"),
        ("messages", {"messages": [OPENING, "rest"]}, "turn 2 needs a role"),
        ("messages", {"messages": [{"role": "tool", "content": ""}]}, "turn 1 needs a role"),
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
        parse(row, kind, COLUMNS, WHERE)
