"""The last look at a reply: every deviation from what was agreed keeps it at the site."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client.outgoing import check_outgoing
from cloister.client.site import Site
from cloister.errors import RefusedError
from cloister.privacy.certificate_alone import to_bytes
from cloister.privacy.chain import Entry, canonical
from cloister.privacy.keys import public_hex
from cloister.privacy.secagg.messages import masked_bytes
from cloister.privacy.secagg.question import Question
from cloister.privacy.secagg.sharing import Sharing
from cloister.privacy.secagg.terms import Terms as EpochTerms
from tests.support.clock import Clock, TimedGrid
from tests.support.ledgers import new_ledger, run_round
from tests.support.papers import keys

UPDATE = Adapter({"w": np.array([1.0, 2.0])})
BOUND = UPDATE.norm()


@dataclass(frozen=True)
class Ledger:
    """As far as the check looks at it."""

    public_key: str = public_hex(keys("ward").ledger)


def site(limit: int = 10_000, bound: float | None = BOUND) -> Site:
    """As much of a site as the check looks at."""
    accept = SimpleNamespace(max_message_bytes=limit)
    return cast(
        Site,
        SimpleNamespace(
            name="ward",
            study="study",
            policy=SimpleNamespace(accept=accept),
            plan=SimpleNamespace(max_update_norm=bound, sharing=None),
            ledger=Ledger(),
        ),
    )


def asked(fields: dict[str, object] | None = None) -> Message:
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    record = ConfigRecord(fields or RoundRequest("study", 3, b"x").fields())  # type: ignore[arg-type]
    message = Message(RecordDict({RECORD: record}), 7, "train")
    message.metadata.__dict__["_message_id"] = "question"
    return message


def trained(delta: bytes | None = None, by: str = "ward", **changes: object) -> RoundReply:
    said = RoundReply("ward", 3, Status.TRAINED, delta or encode(UPDATE), 1.5, "head")
    said = replace(said, **changes)  # type: ignore[arg-type]
    return replace(said, signature=keys(by).ledger.sign(said.statement("study")))


def told(status: Status, name: str = "ward") -> RoundReply:
    said = RoundReply(name, 3, status, b"", 0.0, "")
    return replace(said, signature=keys("ward").ledger.sign(said.statement("study")))


def check(
    reply: RoundReply | RecordDict, where: Site | None = None, request: Message | None = None
) -> None:
    request = request or asked()
    if isinstance(reply, RoundReply):
        reply = RecordDict({RECORD: ConfigRecord(reply.fields())})
    check_outgoing(Message(reply, reply_to=request), request, where, UPDATE.shapes)


def test_what_was_agreed_leaves() -> None:
    check(trained(), site())
    check(trained(encode(UPDATE.scale(0.5))), site())
    check(trained(encode(UPDATE.scale(9.0))), site(bound=None))
    for status in set(Status) - {Status.TRAINED}:
        check(told(status), site())
        check(told(status), None)
    check(RoundReply("", 3, Status.FAILED, b"", 0.0, ""), None)
    unread = asked({"nothing": 1})
    check(RoundReply("", 0, Status.FAILED, b"", 0.0, ""), None, unread)


BAD: dict[str, RoundReply] = {
    "another's name": trained(site="clinic"),
    "another round": trained(round=4),
    "no signature": replace(trained(), signature=b""),
    "another's signature": trained(by="clinic"),
    "another update than was signed": replace(trained(), delta=encode(UPDATE.scale(0.5))),
    "a larger norm": trained(encode(UPDATE.scale(1.001))),
    "another name of a tensor": trained(encode(Adapter({"v": np.ones(2)}))),
    "another shape": trained(encode(Adapter({"w": np.ones((2, 1))}))),
    "one tensor more": trained(encode(Adapter({"w": np.zeros(2), "v": np.zeros(1)}))),
    "garbage": trained(b"patient Jane Doe"),
    "something behind it": trained(encode(UPDATE) + b"Jane"),
    "nothing": replace(trained(), delta=b""),
    "ε that is no number": trained(epsilon=float("nan")),
    "ε below 0": trained(epsilon=-1.0),
    "a status with an update": replace(told(Status.REFUSED), delta=encode(UPDATE)),
    "a status with ε": replace(told(Status.REFUSED), epsilon=0.1),
    "a status with an entry": replace(told(Status.REFUSED), head="x"),
    "a status of another round": replace(told(Status.REFUSED), round=2),
    "a status in another's name": told(Status.REFUSED, "clinic"),
    "a status of nobody": told(Status.REFUSED, ""),
    "a status with a long signature": replace(told(Status.FAILED), signature=b"Jane" * 99),
    "a failure of nobody with a signature": told(Status.FAILED, ""),
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD.keys())
def test_every_deviation_stays_at_the_site(reply: RoundReply) -> None:
    with pytest.raises(RefusedError):
        check(reply, site())


def test_no_update_leaves_without_a_site() -> None:
    with pytest.raises(RefusedError, match="could not be opened"):
        check(trained(), None)


def test_an_update_above_the_policy_s_bytes_stays() -> None:
    size = len(encode(UPDATE))
    check(trained(), site(size))
    with pytest.raises(RefusedError, match=r"accept\.max_message_bytes"):
        check(trained(), site(size - 1))


def test_other_records_stay() -> None:
    fields = trained().fields()
    for records in (
        RecordDict(),
        RecordDict({RECORD: ConfigRecord(fields), "notes": ConfigRecord({"a": 1})}),
        RecordDict({RECORD: ConfigRecord(fields), "loss": MetricRecord({"loss": 0.1})}),
        RecordDict({"other": ConfigRecord(fields)}),
        RecordDict({RECORD: ArrayRecord()}),
        RecordDict({RECORD: ConfigRecord({**fields, "loss": 0.1})}),
        RecordDict({RECORD: ConfigRecord({"site": "ward"})}),
        RecordDict({RECORD: ConfigRecord({**fields, "status": "Jane"})}),
        RecordDict({RECORD: ConfigRecord({**fields, "round": "3"})}),
    ):
        with pytest.raises(RefusedError):
            check(records, site())


def test_an_error_s_text_stays() -> None:
    request = asked()
    with pytest.raises(RefusedError):
        check_outgoing(
            Message(Error(0, "Jane Doe"), reply_to=request), request, site(), UPDATE.shapes
        )


def test_a_reply_goes_to_who_asked_and_to_nobody_else() -> None:
    content = RecordDict({RECORD: ConfigRecord(trained().fields())})
    request, other = asked(), asked()
    other.metadata.__dict__["_message_id"] = "another question"
    elsewhere = Message(content, reply_to=request)
    elsewhere.metadata.__dict__["_dst_node_id"] = 99
    for message in (Message(content, reply_to=other), Message(content, 1, "train"), elsewhere):
        with pytest.raises(RefusedError):
            check_outgoing(message, request, site(), UPDATE.shapes)


def test_a_refusal_quotes_nothing_of_an_update(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as refused:
        check(trained(b"patient Jane Doe"), site())
    assert "Jane" not in str(refused.value)


SHARING = Sharing(sites=3, missing=1, colluding=0)
MEMBERS = {name: public_hex(keys(name).ledger) for name in ("ward", "clinic", "practice")}
TERMS = EpochTerms(study="study", epoch=1, members=MEMBERS, sharing=SHARING)


def secure_site(limit: int = 10_000) -> Site:
    """A site whose noise is shared, with the keys of an epoch."""
    plain = site(limit)
    return cast(
        Site,
        SimpleNamespace(
            name="ward", study="study", policy=plain.policy, ledger=plain.ledger,
            plan=SimpleNamespace(max_update_norm=None, sharing=SHARING),
            keys=SimpleNamespace(terms=TERMS),
        ),
    )  # fmt: skip


def for_step(step: Step) -> Message:
    boxes = {"clinic": "00", "practice": "00"} if step is Step.REVEAL else {}
    question = Question(epoch=1, members=MEMBERS, boxes=boxes)
    return asked(RoundRequest("study", 3, b"", step, question.to_bytes()).fields())


LENGTHS = {Step.ADVERTISE: 96, Step.MASK: masked_bytes(TERMS, 2), Step.SIGN: 64,
           Step.REVEAL: 3 * 33}  # fmt: skip


@pytest.mark.parametrize("step", LENGTHS)
def test_an_answer_of_secure_aggregation_has_one_length(step: Step) -> None:
    length = LENGTHS[step]
    told = {} if step is Step.MASK else {"epsilon": 0.0, "head": ""}
    check(trained(b"x" * length, **told), secure_site(), for_step(step))
    for other in (length - 1, length + 1, length + 4):
        with pytest.raises(RefusedError, match="are what it takes"):
            check(trained(b"x" * other, **told), secure_site(), for_step(step))
    with pytest.raises(RefusedError, match="did not sign"):
        check(trained(b"x" * length, by="clinic", **told), secure_site(), for_step(step))
    with pytest.raises(RefusedError, match="max_message_bytes"):
        check(trained(b"x" * length, **told), secure_site(limit=50), for_step(step))


def test_a_certificate_leaves_as_the_ledger_gives_it_and_no_other(tmp_path: Path) -> None:
    """Made again at the exit: not a byte of it is anybody's choice, but for the base's hash."""
    ledger = new_ledger(tmp_path / "site.ledger")
    run_round(ledger, 1)
    where = cast(
        Site,
        SimpleNamespace(
            name="ward", study="study", ledger=ledger, policy=site().policy,
            plan=SimpleNamespace(sharing=None),
        ),
    )  # fmt: skip
    asking = asked(RoundRequest("study", 3, b"", Step.CERTIFY).fields())

    def told(payload: bytes, **changes: object) -> RoundReply:
        said = RoundReply("ward", 3, Status.TRAINED, payload, 0.0, "")
        said = replace(said, **changes)  # type: ignore[arg-type]
        return replace(said, signature=ledger.sign(said.statement("study")))

    sound = to_bytes(ledger.certificate("study", site="ward", base="ab" * 32))
    check(told(sound), where, asking)
    as_ward = ledger._key
    claims = ledger.certificate("study", site="ward", base="ab" * 32).fields
    for lie in (
        {"time": "Jane"}, {"code": "Jane"}, {"rounds": 7}, {"adapter": "Jane"},
        {"promise": {**claims["promise"], "epsilon": 0.1}},
        {"spent": {**claims["spent"], "is_promise": True}},
    ):  # fmt: skip
        body = canonical({**claims, **lie})
        with pytest.raises(RefusedError, match="does not give"):
            check(told(to_bytes(Entry(body, as_ward.sign(body)))), where, asking)
    for payload in (b"", b"Jane", sound + b" ", b"{}", b'{"body": "Jane", "signature": "00"}'):
        with pytest.raises(RefusedError):
            check(told(payload), where, asking)
    named = to_bytes(ledger.certificate("study", site="ward", base="Jane"))
    with pytest.raises(RefusedError, match="does not give"):
        check(told(named), where, asking)
    for change in ({"epsilon": 1.0}, {"head": "x"}):
        with pytest.raises(RefusedError, match="more than itself"):
            check(told(sound, **change), where, asking)
    with pytest.raises(RefusedError):  # and an update is no answer to it
        check(told(encode(UPDATE)), where, asking)


def test_no_update_in_clear_leaves_where_noise_is_shared() -> None:
    for step in LENGTHS:
        with pytest.raises(RefusedError):
            check(trained(), secure_site(), for_step(step))
    with pytest.raises(RefusedError):
        check(trained(), secure_site(), asked())
    with pytest.raises(RefusedError, match="tells of a release"):
        check(trained(b"x" * 64), secure_site(), for_step(Step.SIGN))
