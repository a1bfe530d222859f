"""A unit's mark follows from its key and its own content, and from nothing else."""

import hmac
import random
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.data.unit_hash import content_of
from cloister.ledger.unit_key import UnitKey
from cloister.privacy.units import Unit
from cloister.training.unit_marks import unit_marks
from tests.support.examples import tries

KEY = UnitKey(bytes(range(32)))
TURNS = (Message("user", "hello"), Message("assistant", "good day"))
EVERY: list[Record] = [
    TextRecord("a", "x"),
    PairRecord("a", "x", text_b="b"),
    TokenRecord(("a", "b"), ("O", "B-x")),
    ChatRecord(TURNS),
    ChatRecord((), text="a"),
    ChatRecord(TURNS, rejected=TURNS[:1]),
    LabelsRecord("a", ("x", "y")),
    ScoreRecord("a", 0.5),
    ScoreRecord("a", float("nan")),
    ItemsRecord(("1", "2")),
    TextRecord("lone \ud800", "x"),
]


def marks(records: list[Record], unit: Unit = Unit.RECORD, purpose: str = "group") -> list[int]:
    return [int(mark) for mark in unit_marks(records, unit, KEY, purpose)]


def test_a_mark_is_hmac_of_the_content_computed_by_hand() -> None:
    names = [b'content\0{"label":"x","text":"a"}', b'person\0"p"']
    by_hand = [
        hmac.new(KEY.secret, b"group\0" + sha256(name).digest(), "sha256").digest()[:8]
        for name in names
    ]
    assert marks([TextRecord("a", "x")]) == [int.from_bytes(by_hand[0])]
    assert marks([TextRecord("a", "x", person="p")], Unit.PERSON) == [int.from_bytes(by_hand[1])]


def test_every_kind_of_record_has_a_content_of_its_own() -> None:
    contents = [content_of(record) for record in EVERY]
    assert len(set(contents)) == len(EVERY)
    assert all(content.isascii() for content in contents)
    assert content_of(ChatRecord(TURNS)) == (
        '{"messages":[["user","hello"],["assistant","good day"]]}'
    )


@settings(max_examples=tries(40), deadline=None)
@given(st.permutations(range(len(EVERY))), st.integers(0, len(EVERY) - 1))
def test_no_other_record_and_no_place_changes_a_mark(order: list[int], removed: int) -> None:
    alone = dict(zip(range(len(EVERY)), marks(EVERY), strict=True))
    left = [place for place in order if place != removed]
    assert marks([EVERY[place] for place in left]) == [alone[place] for place in left]


def test_a_mark_does_not_follow_site_person_or_the_name_of_a_copied_record() -> None:
    record = TextRecord("a", "x")
    same = [replace(record, site="s"), replace(record, person="p"), replace(record, unit="u")]
    for other in same:
        assert marks([other]) == marks([record])


def test_copies_have_their_source_s_mark_and_persons_one() -> None:
    source, other = TextRecord("a", "x", unit="1"), TextRecord("z", "x")
    copy = TextRecord("a copy", "x", unit="1")
    assert marks([source, other, copy]) == marks([source, other])
    visits: list[Record] = [TextRecord(text, "x", person="p") for text in "abc"]
    assert marks(visits, Unit.PERSON) == marks(visits[2:], Unit.PERSON)
    # Without a person each row is a unit of its own.
    assert len(marks([TextRecord(text, "x") for text in "abc"], Unit.PERSON)) == 3


def test_other_keys_and_purposes_give_independent_marks() -> None:
    records: list[Record] = [TextRecord(str(number), "x") for number in range(2000)]
    group = unit_marks(records, Unit.RECORD, KEY, "group")
    held = unit_marks(records, Unit.RECORD, KEY, "held-out")
    other = unit_marks(records, Unit.RECORD, UnitKey(bytes(32)), "group")
    for first, second in ((group, held), (group, other)):
        # Of 2,000 pairs a quarter is in both lower halves: 500, deviation 19; 6 deviations.
        both = np.sum((first < 2**63) & (second < 2**63))
        assert abs(int(both) - 500) < 120
    # Four equal groups: 500 each, deviation 19.
    assert all(abs(int(count) - 500) < 120 for count in np.bincount(group % np.uint64(4)))


def test_equal_records_share_a_mark_and_the_purpose_is_plain() -> None:
    assert len(set(marks([TextRecord("a", "x")] * random.randint(2, 5)))) == 1
    with pytest.raises(ValueError, match="ASCII"):
        marks([TextRecord("a", "x")], purpose="a\0b")


def test_an_edited_record_is_another_one_and_a_person_stays() -> None:
    before, after = TextRecord("a", "x", person="p"), TextRecord("a", "y", person="p")
    assert marks([before]) != marks([after])
    assert marks([before], Unit.PERSON) == marks([after], Unit.PERSON)
