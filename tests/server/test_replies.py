"""A reply counts once, for the site that signed it, in this round of this study."""

import hashlib
import math
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from cloister.adapter.formats import Dtype
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.ledger.signing import public_hex
from cloister.protocol.exchange import RECORD, RoundReply, Status
from cloister.server.replies import Replies, ReplyTerms, read_replies, update_reader
from tests.support.clock import Clock, TimedGrid
from tests.support.papers import keys

SITES = ("a", "b", "c")
UPDATE = Adapter({"w": np.array([1.0, 2.0])})
TERMS = ReplyTerms(
    digest="study",
    sites=SITES,
    keys={site: public_hex(keys(site).ledger) for site in SITES},
)


def reply(site: str = "a", number: int = 3, status: Status = Status.TRAINED) -> RoundReply:
    trained = status is Status.TRAINED
    delta, spent, head = (encode(UPDATE), 1.5, "ab" * 32) if trained else (b"", 0.0, "")
    return RoundReply(site, number, status, delta, spent, head)


def signed(said: RoundReply, by: str = "", study: str = "study") -> RoundReply:
    key = keys(by or said.site).ledger
    return replace(said, signature=key.sign(said.statement(study)))


def message(said: RoundReply | Mapping[str, object]) -> Message:
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    fields = said.fields() if isinstance(said, RoundReply) else said
    content = RecordDict({RECORD: ConfigRecord(dict(fields))})  # type: ignore[arg-type]
    return Message(content, 1, "train")


def read(*answers: tuple[str, RoundReply | Message], terms: ReplyTerms = TERMS) -> Replies:
    came = [(who, one if isinstance(one, Message) else message(one)) for who, one in answers]
    taken: dict[str, Adapter] = {}
    reader = update_reader(UPDATE.norm(), "float32", lambda site: [UPDATE.shapes])
    found = read_replies(came, terms, 3, reader, taken.__setitem__)
    assert list(taken) == found.counted
    assert all(same(update, UPDATE) for update in taken.values())
    return found


def same(one: Adapter, other: Adapter) -> bool:
    return (one - other).norm() == 0


def test_what_a_site_signed_counts_for_it() -> None:
    found = read(("a", signed(reply("a"))), ("b", signed(reply("b"))))
    assert set(found.counted) == {"a", "b"}
    assert found.epsilon == {"a": 1.5, "b": 1.5}
    assert found.refused == {}


FORGED: dict[str, RoundReply] = {
    "unsigned": reply(),
    "signed by another site's key": signed(reply(), by="b"),
    "signed by a stranger's key": signed(reply(), by="nobody"),
    "signed for another study": signed(reply(), study="another"),
    "signed for another round": replace(signed(reply(number=2)), round=3),
    "another update than was signed": replace(signed(reply()), delta=encode(UPDATE.scale(0.5))),
    "another ε than was signed": replace(signed(reply()), epsilon=0.1),
    "another entry than was signed": replace(signed(reply()), head="cd" * 32),
    "another status than was signed": replace(
        signed(reply(status=Status.REFUSED)), status=Status.BUDGET
    ),
    "a cut signature": replace(signed(reply()), signature=signed(reply()).signature[:-1]),
    "another's reply under this name": replace(signed(reply("b")), site="a"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_what_it_did_not_sign_does_not(forged: RoundReply) -> None:
    found = read(("a", forged), ("b", signed(reply("b"))))
    assert set(found.counted) == {"b"}
    assert found.refused == {"a": "not signed by the ledger's key of a"}
    assert not found.retired | found.spent


def test_a_replay_of_another_round_is_refused() -> None:
    found = read(("a", signed(reply(number=2))))
    assert found.counted == []
    assert found.refused == {"a": "the answer is to round 2"}


def test_an_authenticated_node_cannot_speak_in_another_s_name() -> None:
    """Neither with a reply that the other signed, nor with one of its own making."""
    for said in (signed(reply("b")), signed(reply("b"), by="a"), reply("b")):
        found = read(("a", said))
        assert found.counted == []
        assert list(found.refused.values()) == ["the node of a answers in the name of b"]
    for status in (Status.BUDGET, Status.SPENT):
        found = read(("a", signed(reply("b", status=status))))
        assert not found.retired | found.spent


def test_a_stranger_is_refused() -> None:
    found = read(("", signed(reply("stranger"))))
    assert found.refused == {"a site": "the site is not in this study"}


def test_a_site_without_a_known_key_is_refused() -> None:
    terms = replace(TERMS, keys={"b": public_hex(keys("b").ledger)})
    assert read(("a", signed(reply("a"))), terms=terms).counted == []


def test_a_second_update_of_one_round_does_not_count() -> None:
    found = read(("a", signed(reply())), ("a", signed(replace(reply(), epsilon=9.0))))
    assert found.epsilon == {"a": 1.5}
    assert found.refused == {"a": "a second update in one round"}


@pytest.mark.parametrize("status", [Status.BUDGET, Status.SPENT, Status.REFUSED, Status.FAILED])
def test_a_status_counts_where_it_is_signed(status: Status) -> None:
    found = read(("a", signed(reply(status=status))))
    assert found.retired == ({"a"} if status is Status.BUDGET else set())
    assert found.spent == ({"a"} if status is Status.SPENT else set())
    assert bool(found.refused) is (status in (Status.REFUSED, Status.FAILED))
    unsigned = read(("a", reply(status=status)))
    assert not unsigned.retired | unsigned.spent
    assert set(unsigned.refused) == {"a"}


def test_a_site_that_could_not_sign_is_told_by_its_node() -> None:
    for word in (Status.REFUSED, Status.FAILED):  # FAILED: as older sites say it
        found = read(("a", reply("", status=word)))
        assert found.refused == {"a": f"it says: {word}, before it could sign"}
    for status in (Status.BUDGET, Status.SPENT, Status.TRAINED):
        assert not read(("a", reply("", status=status))).counted


def content(**records: object) -> Message:
    message(reply())
    return Message(RecordDict(dict(records)), 1, "train")  # type: ignore[arg-type]


def test_other_records_are_refused() -> None:
    ask = message(reply())
    ask.metadata.__dict__["_message_id"] = "1"
    odd = {
        "no record": content(),
        "another name": content(other=ConfigRecord({})),
        "numbers": content(**{RECORD: MetricRecord({"site": 1})}),
        "arrays": content(**{RECORD: ArrayRecord()}),
        "Flower's error": Message(Error(8, "patient Jane Doe"), reply_to=ask),
        "a field more": message({**signed(reply()).fields(), "loss": 0.5}),
        "a field less": message({"site": "a"}),
        "no number": message({**signed(reply()).fields(), "epsilon": float("nan")}),
        "another type": message({**signed(reply()).fields(), "round": "3"}),
        "another status": message({**signed(reply()).fields(), "status": "best"}),
    }
    for what, one in odd.items():
        found = read(("a", one))
        assert (found.counted, set(found.refused)) == ([], {"a"}), what
        assert "Jane" not in str(found.refused)


def with_values(*values: float) -> bytes:
    """UPDATE's message with other values and their hash, as `encode` would refuse to write it."""
    whole, body = encode(UPDATE), np.array(values, "<f4").tobytes()
    old = hashlib.sha256(whole[-len(body) :]).hexdigest().encode()
    assert old in whole
    return whole[: -len(body)].replace(old, hashlib.sha256(body).hexdigest().encode()) + body


BAD: dict[str, bytes] = {
    "garbage": b"garbage",
    "empty": b"",
    "cut off": encode(UPDATE)[:-1],
    "more": encode(UPDATE) + b"\x00",
    "another name": encode(Adapter({"v": np.ones(2)})),
    "another shape": encode(Adapter({"w": np.ones((2, 1))})),
    "another dtype": encode(UPDATE, "bfloat16"),
    "not a number": with_values(1.0, math.nan),
    "infinite": with_values(math.inf, 2.0),
    "too large a norm": encode(UPDATE.scale(1.001)),
}


@pytest.mark.parametrize("delta", BAD.values(), ids=BAD.keys())
def test_a_signed_update_is_held_against_the_plan(delta: bytes) -> None:
    found = read(("a", signed(replace(reply(), delta=delta))), ("b", signed(reply("b"))))
    assert set(found.counted) == {"b"}
    assert set(found.refused) == found.unfit == {"a"}


def test_a_forged_reply_excuses_nobody_who_did_not_send_it() -> None:
    """What a node sends in another's name speaks against itself alone."""
    forged = signed(reply("b"), by="a")
    found = read(("a", forged), ("b", signed(reply("b"))))
    assert (found.counted, found.unfit) == (["b"], {"a"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_reading_an_update_holds_it_once_more_and_no_more(dtype: Dtype) -> None:
    """From Flower's message to what is aggregated: the float32 values, and little beside.

    One tensor, the worst case: what is made of it on the way is made of all of it. As bfloat16 its
    bits become 32 wide, and as int8 floats, before they are copied: once more.
    """
    update = Adapter({"w": np.ones(5_000_000, np.float32)})
    said = signed(replace(reply(), delta=encode(update, dtype)))
    came = [("a", message(said))]
    reader = update_reader(update.norm() * 1.1, dtype, lambda site: [update.shapes])
    counted: list[str] = []
    tracemalloc.start()
    try:
        read_replies(came, TERMS, 3, reader, lambda site, value: counted.append(site))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted == ["a"]
    copies = {"float32": 1.5, "bfloat16": 2.6, "int8": 3.1}[dtype]
    assert peak < copies * 20_000_000 + 10_000_000
