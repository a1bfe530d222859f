"""The last check of a reply keeps every deviation from the agreed terms at the site."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from cloister.adapter.compact import encode_compact
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.canonical import canonical
from cloister.client.app import as_message, left_at
from cloister.client.egress import STAMPED, check_outgoing
from cloister.client.site import Site
from cloister.errors import RefusedError
from cloister.evidence.certificate_alone import to_bytes
from cloister.ledger.chain import Entry
from cloister.ledger.history import ReleasedEntry
from cloister.ledger.signing import public_hex
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.secagg.epoch_terms import EpochTerms as EpochTerms
from cloister.secagg.messages import masked_bytes
from cloister.secagg.query import Query
from cloister.training.config import TrainingConfig
from tests.support.clock import Clock, TimedGrid
from tests.support.ledgers import new_ledger, run_round
from tests.support.papers import keys

UPDATE = Adapter({"w": np.array([1.0, 2.0])})
BOUND = UPDATE.norm()
SCORES = Adapter({"statistics": np.array([3.0, 1.0, 0.5])})
HEAD, EPSILON = "ab" * 32, 1.5
SCORED_HEAD, VOTED_HEAD = "cd" * 32, "ef" * 32
COUNTS = Adapter({"votes": np.ones(4, np.float32)})
NAMED = TrainingConfig()
COMPACT = TrainingConfig(update_dtype="int8", adapter_dtype="int8")


@dataclass(frozen=True)
class Ledger:
    """As far as the check looks at it: in round 3 it released an update, and scores after it."""

    released: bytes = encode(UPDATE)
    scored: bytes = encode(SCORES)
    voted: bytes = encode(COUNTS)
    public_key: str = public_hex(keys("ward").ledger)

    def sign(self, statement: bytes) -> bytes:
        return keys("ward").ledger.sign(statement)

    def release_of(
        self, study: str, number: int, kind: ReleaseKind = ReleaseKind.TRAINING
    ) -> ReleasedEntry | None:
        if (study, number) != ("study", 3):
            return None
        if kind is ReleaseKind.EVALUATION:
            return ReleasedEntry(4, SCORED_HEAD, hashlib.sha256(self.scored).hexdigest(), 0)
        if kind is ReleaseKind.VOTE:
            return ReleasedEntry(6, VOTED_HEAD, hashlib.sha256(self.voted).hexdigest(), 0)
        return ReleasedEntry(2, HEAD, hashlib.sha256(self.released).hexdigest(), 0)


def site(
    limit: int = 10_000,
    bound: float | None = BOUND,
    released: bytes = encode(UPDATE),
    training: TrainingConfig = NAMED,
) -> Site:
    """As much of a site as the check looks at."""
    accept = SimpleNamespace(max_message_bytes=limit)
    return cast(
        Site,
        SimpleNamespace(
            name="ward",
            study="study",
            policy=SimpleNamespace(accept=accept),
            plan=SimpleNamespace(max_update_norm=bound, sharing=None, votes=None),
            training=training,
            ledger=Ledger(released),
            stated_epsilon=lambda: EPSILON,
        ),
    )


def asked(fields: dict[str, object] | None = None) -> Message:
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    record = ConfigRecord(fields or RoundRequest("study", 3, b"x").fields())  # type: ignore[arg-type]
    message = Message(RecordDict({RECORD: record}), 7, "train")
    message.metadata.__dict__["_message_id"] = "question"
    return message


EVALUATING = RoundRequest("study", 3, b"x", Step.EVALUATE).fields()
DELIVERING = RoundRequest("study", 3, b"x", Step.DELIVER).fields()
PREPARING = RoundRequest("study", 0, b"", Step.PREPARE).fields()


def trained(delta: bytes | None = None, by: str = "ward", **changes: object) -> RoundReply:
    said = RoundReply("ward", 3, Status.TRAINED, delta or encode(UPDATE), EPSILON, HEAD)
    said = replace(said, **changes)  # type: ignore[arg-type]
    return replace(said, signature=keys(by).ledger.sign(said.statement("study")))


def told(status: Status, name: str = "ward", number: int = 3) -> RoundReply:
    said = RoundReply(name, number, status, b"", 0.0, "")
    return replace(said, signature=keys("ward").ledger.sign(said.statement("study")))


def check(
    reply: RoundReply | RecordDict, where: Site | None = None, request: Message | None = None
) -> None:
    request = request or asked()
    if isinstance(reply, RoundReply):
        reply = RecordDict({RECORD: ConfigRecord(reply.fields())})
    sign = keys("ward").ledger.sign
    check_outgoing(enveloped(reply, request), request, where, UPDATE.shapes, sign, SCORES.shapes)


def enveloped(content: RecordDict, request: Message) -> Message:
    """As the app carries a reply: the envelope is not what these tests are about."""
    message = Message(content, reply_to=request)
    message.metadata.created_at = float(int(message.metadata.created_at))
    message.metadata.ttl = left_at(message.metadata.created_at, request)
    return message


def test_what_was_agreed_leaves() -> None:
    check(trained(), site())
    for scale, bound in ((0.5, BOUND), (9.0, None)):
        sent = encode(UPDATE.scale(scale))
        check(trained(sent), site(bound=bound, released=sent))
    for status in (Status.SPENT, Status.BUDGET, Status.REFUSED):
        check(told(status), site())
        check(told(status), None)
    for status in (Status.READY, Status.BUDGET, Status.REFUSED, Status.UNAPPROVED):
        check(told(status, number=0), site(), asked(PREPARING))
        check(told(status, number=0), None, asked(PREPARING))
    check(RoundReply("", 3, Status.REFUSED, b"", 0.0, ""), None)
    unread = asked({"nothing": 1})
    check(RoundReply("", 0, Status.REFUSED, b"", 0.0, ""), None, unread)


@pytest.mark.parametrize("status", Status)
def test_each_question_has_its_words(status: Status) -> None:
    """A word that belongs to another question, or to older sites, is one bit more than agreed."""
    if status in (Status.FAILED, Status.READY, Status.UNAPPROVED):
        with pytest.raises(RefusedError, match="no answer"):
            check(told(status), site())
    if status in (Status.FAILED, Status.SPENT, Status.TRAINED):
        with pytest.raises(RefusedError, match="no answer"):
            check(told(status, number=0), site(), asked(PREPARING))


BAD: dict[str, RoundReply] = {
    "another's name": trained(site="clinic"),
    "another round": trained(round=4),
    "no signature": replace(trained(), signature=b""),
    "another's signature": trained(by="clinic"),
    "another update than was signed": replace(trained(), delta=encode(UPDATE.scale(0.5))),
    "an update that was not released": trained(encode(UPDATE.scale(0.5))),
    "another entry": trained(head="0" * 64),
    "an entry that says more": trained(head="head Jane Doe"),
    "a record count as ε": trained(epsilon=float(21)),
    "an ε a bit apart": trained(epsilon=np.nextafter(EPSILON, 2.0)),
    "nothing": replace(trained(), delta=b""),
    "ε that is no number": trained(epsilon=float("nan")),
    "ε below 0": trained(epsilon=-1.0),
    "a status with an update": replace(told(Status.REFUSED), delta=encode(UPDATE)),
    "a status with ε": replace(told(Status.REFUSED), epsilon=0.1),
    "a status with an entry": replace(told(Status.REFUSED), head="x"),
    "a status of another round": replace(told(Status.REFUSED), round=2),
    "a status in another's name": told(Status.REFUSED, "clinic"),
    "a status of nobody": told(Status.REFUSED, ""),
    "a status with a long signature": replace(told(Status.SPENT), signature=b"Jane" * 99),
    "a status with 64 other bytes": replace(told(Status.SPENT), signature=b"Jane" * 16),
    "a refusal of nobody with a signature": told(Status.REFUSED, ""),
    "a word of nobody that says more": RoundReply("", 3, Status.SPENT, b"", 0.0, ""),
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD.keys())
def test_every_deviation_stays_at_the_site(reply: RoundReply) -> None:
    with pytest.raises(RefusedError):
        check(reply, site())


RELEASED: dict[str, bytes] = {
    "a larger norm": encode(UPDATE.scale(1.001)),
    "another name of a tensor": encode(Adapter({"v": np.ones(2)})),
    "another shape": encode(Adapter({"w": np.ones((2, 1))})),
    "one tensor more": encode(Adapter({"w": np.zeros(2), "v": np.zeros(1)})),
    "garbage": b"patient Jane Doe",
    "something behind it": encode(UPDATE) + b"Jane",
}


@pytest.mark.parametrize("sent", RELEASED.values(), ids=RELEASED.keys())
def test_what_the_plan_does_not_let_out_stays_though_it_was_released(sent: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        check(trained(sent), site(released=sent))
    assert "Jane" not in str(refused.value)


SCORED: dict[str, tuple[RoundReply, bytes]] = {
    "other scores": (trained(encode(SCORES.scale(0.5)), head=SCORED_HEAD), encode(SCORES)),
    "the round's update": (trained(), encode(SCORES)),
    "the scores under the update's entry": (trained(encode(SCORES)), encode(SCORES)),
    "scores of another shape": (trained(encode(UPDATE), head=SCORED_HEAD), encode(UPDATE)),
    "garbage": (trained(b"Jane Doe", head=SCORED_HEAD), b"Jane Doe"),
}


@pytest.mark.parametrize(("reply", "scored"), SCORED.values(), ids=SCORED.keys())
def test_an_evaluation_is_answered_with_its_own_release_alone(
    reply: RoundReply, scored: bytes
) -> None:
    sound, own = trained(encode(SCORES), head=SCORED_HEAD), site()
    check(sound, own, asked(EVALUATING))
    with pytest.raises(RefusedError):
        check(sound, own)  # a round is not answered with the scores after it
    cast(Any, own).ledger = Ledger(scored=scored)
    with pytest.raises(RefusedError):
        check(reply, own, asked(EVALUATING))


def stamped(reply: Message, by: float) -> None:
    """Moves the stamp, and what is left of the question's life with it."""
    reply.metadata.created_at += by
    reply.metadata.ttl -= by


ENVELOPES: dict[str, Callable[[Message], None]] = {
    "of microseconds": lambda reply: stamped(reply, -21e-6),
    "from before": lambda reply: stamped(reply, -2.0 * STAMPED),
    "from the future": lambda reply: stamped(reply, 60.0),
    "a life of its own": lambda reply: setattr(reply.metadata, "ttl", reply.metadata.ttl + 21e-3),
    "one field more": lambda reply: vars(reply.metadata).update(_notes="Jane"),
    **{
        f"{name} of its own": lambda reply, name=name, value=value: vars(reply.metadata).update(  # type: ignore[misc]
            {f"_{name}": value}
        )
        for name, value in {
            "run_id": 7,
            "message_id": "21",
            "src_node_id": 21,
            "dst_node_id": 21,
            "reply_to_message_id": "21",
            "group_id": "21",
            "message_type": "query",
            "src_task_id": 21,
            "dst_task_id": 21,
            "delivered_at": "21",
        }.items()
    },
}


def test_every_field_of_an_envelope_is_looked_at() -> None:
    """So that a field which a new Flower brings is a row of the table above."""
    moved = {name.split()[0] for name in ENVELOPES} | {"created_at", "ttl"}
    assert {
        name.removeprefix("_") for name in vars(as_message(trained(), asked()).metadata)
    } <= moved


@pytest.mark.parametrize("change", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_an_envelope_says_nothing_of_its_own(change: Callable[[Message], None]) -> None:
    request = asked()
    reply = as_message(trained(), request)
    check_outgoing(reply, request, site(), UPDATE.shapes)
    change(reply)
    with pytest.raises(RefusedError):
        check_outgoing(reply, request, site(), UPDATE.shapes)


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


SHARING = Sharing(sites=3, missing=1, colluding=0)
MEMBERS = {name: public_hex(keys(name).ledger) for name in ("ward", "clinic", "practice")}
TERMS = EpochTerms(study="study", epoch=1, members=MEMBERS, sharing=SHARING)


def secure_site(limit: int = 10_000, released: bytes = encode(UPDATE)) -> Site:
    """A site whose noise is shared, with the keys of an epoch."""
    plain = site(limit, released=released)
    return cast(
        Site,
        SimpleNamespace(
            name="ward",
            study="study",
            policy=plain.policy,
            ledger=plain.ledger,
            plan=SimpleNamespace(max_update_norm=None, sharing=SHARING, votes=None),
            keys=SimpleNamespace(terms=TERMS),
            stated_epsilon=plain.stated_epsilon,
        ),
    )


def for_step(step: Step) -> Message:
    boxes = {"clinic": "00", "practice": "00"} if step is Step.REVEAL else {}
    question = Query(epoch=1, members=MEMBERS, boxes=boxes)
    return asked(RoundRequest("study", 3, b"", step, question.to_bytes()).fields())


LENGTHS = {
    Step.ADVERTISE: 96,
    Step.MASK: masked_bytes(TERMS, 2),
    Step.SIGN: 64,
    Step.REVEAL: 3 * 33,
}


@pytest.mark.parametrize("step", LENGTHS)
def test_an_answer_of_secure_aggregation_has_one_length(step: Step) -> None:
    length = LENGTHS[step]
    told = {} if step is Step.MASK else {"epsilon": 0.0, "head": ""}
    where = secure_site(released=b"x" * length)
    check(trained(b"x" * length, **told), where, for_step(step))
    for other in (length - 1, length + 1, length + 4):
        with pytest.raises(RefusedError, match="are needed"):
            check(trained(b"x" * other, **told), where, for_step(step))
    with pytest.raises(RefusedError, match="is not signed by"):
        check(trained(b"x" * length, by="clinic", **told), where, for_step(step))


@pytest.mark.parametrize("length", LENGTHS.values())
@pytest.mark.parametrize("step", [Step.TRAIN, Step.EVALUATE, Step.VOTE])
def test_with_shared_noise_no_bytes_leave_in_clear_whatever_their_length(
    step: Step, length: int
) -> None:
    """An answer to a question in clear once passed if it had the length of a public key."""
    with pytest.raises(RefusedError, match="in clear"):
        check(trained(b"x" * length, epsilon=0.0, head=""), secure_site(), for_step(step))


def test_an_update_without_names_leaves_within_its_bound() -> None:
    sent = encode_compact(UPDATE, "int8", BOUND)
    check(trained(sent), site(released=sent, training=COMPACT))
    for longer, training in (
        (encode_compact(UPDATE.scale(1.1), "int8"), COMPACT),
        (sent, NAMED),
        (encode(UPDATE), COMPACT),
    ):
        with pytest.raises(RefusedError):
            check(trained(longer), site(released=longer, training=training))


def test_masked_statistics_have_their_own_length_and_release() -> None:
    size = sum(value.size for value in SCORES.values())
    question = Query(epoch=1, members=MEMBERS, evaluates=True)
    request = asked(RoundRequest("study", 3, b"", Step.MASK, question.to_bytes()).fields())
    sent = b"x" * masked_bytes(TERMS, size)
    where = replace(secure_site().ledger, scored=sent)  # type: ignore[type-var]
    where = cast(Site, SimpleNamespace(**vars(secure_site()) | {"ledger": where}))
    with pytest.raises(RefusedError):
        check(trained(sent), where, request)
    check(trained(sent, head=SCORED_HEAD), where, request)
    with pytest.raises(RefusedError, match="are needed"):
        check(trained(sent + b"xxxx", head=SCORED_HEAD), where, request)
    with pytest.raises(RefusedError):
        check(trained(sent, head=SCORED_HEAD), where, for_step(Step.MASK))


def voting(where: Site, **changes: object) -> Site:
    """The site in a study of votes for four candidates."""
    plan = {**vars(where.plan), "votes": 4, "message": (("votes", (4,)),)}
    return cast(Site, SimpleNamespace(**vars(where) | {"plan": SimpleNamespace(**plan), **changes}))


def test_counts_leave_as_the_ledger_released_them_and_no_others() -> None:
    request = asked(RoundRequest("study", 3, b"", Step.VOTE, b"[]").fields())
    sent, where = encode(COUNTS), voting(site())
    check(trained(sent, head=VOTED_HEAD), where, request)
    with pytest.raises(RefusedError, match="not the one"):
        check(trained(sent), where, request)
    with pytest.raises(RefusedError, match="not the one"):
        check(trained(encode(UPDATE), head=VOTED_HEAD), where, request)
    other = encode(Adapter({"votes": np.ones(5, np.float32)}))  # released, and yet not the plan's
    with pytest.raises(RefusedError, match="could not read"):
        check(trained(other, head=VOTED_HEAD), voting(site(), ledger=Ledger(voted=other)), request)


def test_masked_counts_have_their_own_length_and_release() -> None:
    sent = b"x" * masked_bytes(TERMS, 4)
    where = voting(secure_site(), ledger=Ledger(voted=sent))
    check(trained(sent, head=VOTED_HEAD), where, for_step(Step.MASK))
    with pytest.raises(RefusedError, match="not the one"):
        check(trained(sent), where, for_step(Step.MASK))
    with pytest.raises(RefusedError, match="are needed"):
        check(trained(sent + b"xxxx", head=VOTED_HEAD), where, for_step(Step.MASK))
    clear = asked(RoundRequest("study", 3, b"", Step.VOTE, b"[]").fields())
    with pytest.raises(RefusedError):
        check(trained(encode(COUNTS), head=VOTED_HEAD), voting(secure_site()), clear)


def test_a_masked_update_is_the_one_that_was_released() -> None:
    sent = b"x" * LENGTHS[Step.MASK]
    with pytest.raises(RefusedError, match="not the one"):
        check(trained(sent), secure_site(released=b"y" * len(sent)), for_step(Step.MASK))
    with pytest.raises(RefusedError, match="epsilon"):
        check(trained(sent, epsilon=21.0), secure_site(released=sent), for_step(Step.MASK))
    with pytest.raises(RefusedError, match="max_message_bytes"):
        check(trained(sent), secure_site(50, sent), for_step(Step.MASK))


def test_a_certificate_leaves_as_the_ledger_gives_it_and_no_other(tmp_path: Path) -> None:
    """Made again at the exit: not a byte of it is anybody's choice, but for the base's hash."""
    ledger = new_ledger(tmp_path / "site.ledger")
    run_round(ledger, 1)
    where = cast(
        Site,
        SimpleNamespace(
            name="ward",
            study="study",
            ledger=ledger,
            policy=site().policy,
            plan=SimpleNamespace(sharing=None),
        ),
    )
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
        {"time": "Jane"},
        {"code": "Jane"},
        {"rounds": 7},
        {"adapter": "Jane"},
        {"promise": {**claims["promise"], "epsilon": 0.1}},
        {"spent": {**claims["spent"], "is_promise": True}},
    ):
        body = canonical({**claims, **lie})
        with pytest.raises(RefusedError, match="is not the ledger's"):
            check(told(to_bytes(Entry(body, as_ward.sign(body)))), where, asking)
    for payload in (b"", b"Jane", sound + b" ", b"{}", b'{"body": "Jane", "signature": "00"}'):
        with pytest.raises(RefusedError):
            check(told(payload), where, asking)
    named = to_bytes(ledger.certificate("study", site="ward", base="Jane"))
    with pytest.raises(RefusedError, match="is not the ledger's"):
        check(told(named), where, asking)
    for change in ({"epsilon": 1.0}, {"head": "cd" * 32}):
        with pytest.raises(RefusedError, match="further content"):
            check(told(sound, **change), where, asking)
    with pytest.raises(RefusedError):  # and an update is no answer to it
        check(told(encode(UPDATE)), where, asking)


def test_an_adapter_is_answered_by_one_word() -> None:
    for status in (Status.READY, Status.REFUSED, Status.BUDGET):
        check(told(status), site(), asked(DELIVERING))
    for reply in (trained(), told(Status.SPENT), told(Status.UNAPPROVED), told(Status.TRAINED)):
        with pytest.raises(RefusedError, match="no answer to it"):
            check(reply, site(), asked(DELIVERING))
    said = replace(told(Status.READY), delta=b"Jane", signature=b"")
    said = replace(said, signature=keys("ward").ledger.sign(said.statement("study")))
    with pytest.raises(RefusedError, match="further content"):
        check(said, site(), asked(DELIVERING))


def test_no_update_in_clear_leaves_where_noise_is_shared() -> None:
    for step in LENGTHS:
        with pytest.raises(RefusedError):
            check(trained(), secure_site(), for_step(step))
    with pytest.raises(RefusedError):
        check(trained(), secure_site(), asked())
    with pytest.raises(RefusedError, match="states a release"):
        check(trained(b"x" * 64), secure_site(), for_step(Step.SIGN))
