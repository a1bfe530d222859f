"""Which units are held out: a function of each unit, a key and a share, and of nothing else."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.data.held_out import (
    FEWEST,
    HeldOut,
    check_share,
    declared_held_out,
    sides,
)
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
from cloister.data.unit_hash import mark_of, side_digests
from cloister.errors import UsageError

KEY = b"k" * 32
TURNS = (Message("user", "fever"), Message("assistant", "rest"))
KINDS: list[Record] = [
    TextRecord("fever", "a"),
    PairRecord("fever", "a", text_b="rash"),
    TokenRecord(("fever", "rash"), ("O", "B-X")),
    LabelsRecord("fever", ("a",)),
    ScoreRecord("fever", 1.0),
    ItemsRecord(("x", "y")),
    ChatRecord(TURNS),
    ChatRecord(TURNS, rejected=TURNS[:1]),
    ChatRecord((), text="fever"),
]


def side_digest(record: Record) -> bytes:
    return side_digests([record])[0]


def texts(count: int) -> list[Record]:
    return [TextRecord(f"note {n}", "a") for n in range(count)]


def held(records: list[Record], share: float = 0.2, key: bytes = KEY) -> list[Record]:
    return sides(records, side_digests(records), HeldOut(key, share))[1]


def test_a_unit_is_held_out_where_its_mark_is_below_the_share() -> None:
    digest = hashlib.sha256(b'read\0{"text":"fever"}').digest()
    assert side_digest(TextRecord("fever", "a")) == digest
    slow = hmac.new(KEY, b"held-out\0" + digest, hashlib.sha256).digest()
    mark = int.from_bytes(slow[:8], "big") / 2**64
    assert [HeldOut(KEY, mark * by).holds(digest) for by in (0.99, 1.01)] == [False, True]


@given(st.lists(st.integers(0, 200), unique=True, max_size=60), st.integers(0, 200))
def test_a_unit_s_side_does_not_depend_on_the_others(kept: list[int], more: int) -> None:
    records = texts(201)
    chosen = set(held(records))
    assert set(held([records[n] for n in kept])) == {records[n] for n in kept} & chosen
    with_one = [records[n] for n in {*kept, more}]
    assert set(held(with_one)) - {records[more]} == set(held([records[n] for n in kept])) - {
        records[more]
    }


def test_all_records_of_a_person_are_on_one_side() -> None:
    records: list[Record] = [TextRecord(f"note {n}", "a", person=f"p{n % 40}") for n in range(400)]
    apart = {record.person for record in held(records)}
    assert 0 < len(apart) < 40
    assert len(held(records)) == 10 * len(apart)


def test_copies_of_a_record_are_on_one_side_and_a_corrected_label_changes_none() -> None:
    copies: list[Record] = [TextRecord(f"note {n}", "a", unit=f"u{n // 5}") for n in range(200)]
    assert {len([c for c in held(copies) if c.unit == f"u{n}"]) for n in range(40)} == {0, 5}
    # Copies that are made later leave a record where it was, and a corrected reply too.
    before = {r.text for r in held(texts(40)) if isinstance(r, TextRecord)}
    later: list[Record] = [
        TextRecord(f"note {n}" if not k else f"copy {k} of {n}", "a", unit=f"u{n}")
        for n in range(40)
        for k in range(3)
    ]
    kept = {r.text for r in held(later) if isinstance(r, TextRecord)}
    assert kept & {f"note {n}" for n in range(40)} == before
    assert len(kept) == 3 * len(before)
    other = ChatRecord((TURNS[0], Message("assistant", "another reply")))
    assert side_digest(other) == side_digest(ChatRecord(TURNS))
    records = texts(100)
    corrected: list[Record] = [TextRecord(f"note {n}", "b") for n in range(100)]
    found = {r.text for r in held(records) if isinstance(r, TextRecord)}
    assert {r.text for r in held(corrected) if isinstance(r, TextRecord)} == found


def test_every_kind_has_a_digest_of_what_a_model_reads() -> None:
    digests = [side_digest(record) for record in KINDS]
    # One text, whatever is asked of it; one question, whatever was replied.
    assert len(set(digests)) == len(KINDS) - 3
    for record, digest in zip(KINDS, digests, strict=True):
        assert side_digest(replace(record, site="east")) == digest
        assert side_digest(replace(record, person="p")) == side_digest(
            TextRecord("x", "y", person="p")
        )
    assert side_digest(TextRecord("a \ud800 lone half", "a")) not in digests


def test_the_share_is_met_and_grows_by_adding() -> None:
    records = texts(20_000)
    small, large = set(held(records, 0.1)), set(held(records, 0.3))
    assert small < large
    # Five deviations of a binomial count around 2,000.
    assert abs(len(small) - 2_000) < 5 * (20_000 * 0.09) ** 0.5
    other = set(held(records, 0.1, b"x" * 32))
    assert abs(len(small & other) - 200) < 5 * 14


def test_different_purposes_are_independent() -> None:
    digests = [side_digest(record) for record in texts(4_000)]
    one, other = ([mark_of(digest, KEY, use) < 2**63 for digest in digests] for use in "ab")
    assert abs(sum(a == b for a, b in zip(one, other, strict=True)) - 2_000) < 5 * 32


@pytest.mark.parametrize(
    ("share", "records", "word"),
    [
        (0.0, 1000, "above 0"),
        (0.6, 1000, "at most 0.5"),
        (float("nan"), 1000, "above 0"),
        (0.1, 200, "is 20; .* raise it to 0.15 or more"),
        (0.1, 40, "is 4; .* leave it out"),
    ],
)
def test_a_share_of_which_nothing_could_be_said_is_refused(
    share: float, records: int, word: str
) -> None:
    with pytest.raises(UsageError, match=f"held_out_share: .*{word}"):
        check_share(share, records)
    check_share(0.1, 10 * FEWEST)
    assert declared_held_out(10 * FEWEST, 0.1) == FEWEST


# --- broken ways of holding out, each refuted by one of the laws above -----------------------

Digests = Callable[[list[Record]], list[bytes]]


def sound(records: list[Record]) -> list[bytes]:
    return [side_digest(record) for record in records]


def by_place(records: list[Record]) -> list[bytes]:
    return [str(place).encode() for place in range(len(records))]


def by_count(records: list[Record]) -> list[bytes]:
    return [side_digest(record) + bytes([len(records) % 256]) for record in records]


def by_earlier_equals(records: list[Record]) -> list[bytes]:
    return [side_digest(r) + bytes([records[:n].count(r)]) for n, r in enumerate(records)]


def by_record_of_a_person(records: list[Record]) -> list[bytes]:
    return [side_digest(replace(record, person=None)) for record in records]


def by_label(records: list[Record]) -> list[bytes]:
    return [side_digest(r) + repr(getattr(r, "label", "")).encode() for r in records]


def laws(digests: Digests) -> set[str]:
    """The laws that a way of choosing breaks."""
    broken, key = set(), HeldOut(KEY, 0.5)

    def chosen(records: list[Record]) -> list[Record]:
        return sides(records, digests(records), key)[1]

    records: list[Record] = [
        TextRecord(f"note {n // 2}", "ab"[n % 2], person=f"p{n // 6}" if n < 60 else None)
        for n in range(120)
    ]
    whole = chosen(records)
    for left_out in range(0, 120, 7):
        others = [*records[:left_out], *records[left_out + 1 :]]
        rest = [record for record in whole if record is not records[left_out]]
        if [id(one) for one in chosen(others)] != [id(one) for one in rest]:
            broken.add("others")
    persons = {r.person for r in whole} & {r.person for r in records if r not in whole}
    broken |= {"persons"} if persons - {None} else set()
    texts = [{getattr(r, "text", "") for r in side} for side in (whole, set(records) - set(whole))]
    broken |= {"labels"} if texts[0] & texts[1] else set()
    return broken


@pytest.mark.parametrize(
    ("digests", "broken"),
    [
        (sound, set()),
        (by_place, {"others", "persons", "labels"}),
        (by_count, {"others"}),
        (by_earlier_equals, set()),
        (by_record_of_a_person, {"persons"}),
        (by_label, {"labels"}),
    ],
)
def test_each_broken_way_of_choosing_is_refuted(digests: Digests, broken: set[str]) -> None:
    if digests is by_earlier_equals:  # equal records must be on one side, whatever is before them
        twice: list[Record] = [TextRecord(f"note {n // 2}", "a") for n in range(120)]
        found = sides(twice, digests(twice), HeldOut(KEY, 0.5))[1]
        assert any(found.count(record) == 1 for record in found)
        right = sides(twice, sound(twice), HeldOut(KEY, 0.5))[1]
        assert all(right.count(record) == 2 for record in right)
        return
    assert laws(digests) >= broken
    assert bool(laws(digests)) is bool(broken)
