"""Public training sets: their hash, and their records that are scored too."""

import hashlib
from pathlib import Path

import pytest

from cloister.data.config import DataConfig
from cloister.data.public_set import overlap, refuse_contaminated, stated_public_set, text_of
from cloister.data.records import ChatRecord, Message, PairRecord, Record, TextRecord, TokenRecord
from cloister.errors import DataError, UsageError

LONG = "the patient was sent home on the third day with instructions to rest and drink water"
TEST = [TextRecord(LONG, "a"), TextRecord("knee swollen since monday", "b")]


def texts(*given: str) -> list[Record]:
    return [TextRecord(text, "a") for text in given]


def test_equal_and_nearly_equal_texts_are_counted_apart_whatever_their_labels() -> None:
    public = texts(
        "nothing of the kind",
        f"{LONG}.",  # one character more
        "knee swollen since monday",
        "chest pain at rest",
        LONG.upper(),
    )
    found = overlap(public, TEST)
    assert (found.exact, found.near, found.first, found.count) == (1, 2, 1, 3)


def test_copies_within_the_public_set_are_no_overlap() -> None:
    found = overlap(texts("one text of its own", "one text of its own"), TEST)
    assert (found.count, found.first) == (0, None)


def test_the_refusal_says_how_many_and_which_is_the_first() -> None:
    with pytest.raises(DataError) as caught:
        refuse_contaminated(texts("something else", "chest pain", LONG), TEST)
    message = str(caught.value)
    assert message.startswith("data.public: 1 of 3 records")
    assert "the first is record 3" in message
    assert LONG[:10] not in message
    refuse_contaminated(texts("something else"), TEST)
    refuse_contaminated([], TEST)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (PairRecord("one", "a", text_b="two"), "one\ntwo"),
        (TokenRecord(("a", "b"), ("O", "O")), "a b"),
        (ChatRecord((Message("user", "hi"), Message("assistant", "ho"))), "hi\nho"),
    ],
)
def test_every_text_of_a_record_is_compared(record: Record, text: str) -> None:
    assert text_of(record) == text


def test_a_public_file_is_stated_by_its_hash_and_its_size(tmp_path: Path) -> None:
    file = tmp_path / "public.jsonl"
    file.write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
    stated = stated_public_set(DataConfig(public=str(file)), "text")
    assert stated.public_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert stated.public_count == 2
    assert stated_public_set(stated, "text") == stated
    file.write_text('{"text": "one", "label": "a"}\n')
    with pytest.raises(DataError, match=r"data\.public: .* has SHA-256 .*, but the study needs"):
        stated_public_set(stated, "text")
    with pytest.raises(DataError, match=r"data\.public"):
        stated_public_set(DataConfig(public=str(tmp_path / "none.jsonl")), "text")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"public": "owner/name"}, "public: owner/name given; a file on the coordinator's"),
        (
            {"public": "a.jsonl", "train": "a.jsonl", "test": "b.jsonl"},
            "public: the training file a.jsonl given",
        ),
        ({"public_count": 3}, "given without public"),
        ({"public_sha256": "0" * 64}, "given without public"),
    ],
)
def test_what_is_no_public_file_is_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        DataConfig(**fields)  # type: ignore[arg-type]
