"""For any message of a member or the SuperLink, the gate answers with a listed HTTP status."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.deployment.coordinator.gate_authenticator import MemberAuthenticator
from cloister.deployment.coordinator.gate_book import Book, MemberPage, PendingQuestion
from cloister.deployment.coordinator.gate_calls import CALLS, REQUESTS, Caller, judge, parse
from cloister.deployment.coordinator.gate_forward import Gate
from cloister.deployment.coordinator.gate_objects import parts_of, why_unfit
from cloister.deployment.coordinator.gate_polls import Polls
from cloister.deployment.coordinator.pushed import KnownMarks
from cloister.deployment.coordinator.reply_size import Largest
from cloister.deployment.enrolment.node_key import public_pem
from tests.support import gate as gates
from tests.support.gate import OTHER_NODE, PART, QUESTION, RUN, signed
from tests.support.papers import keys

ANSWERS = {200, 400, 401, 403, 404, 408, 411, 413, 431, 502, 503}


class Place:
    """A connection that has a place."""

    most = 0

    def belongs_to(self, site: str) -> bool:
        return True

    def is_strangers(self) -> None:
        return None

    def abort(self, why: str) -> None:
        raise AssertionError(why)


async def streamed(content: bytes) -> AsyncIterator[bytes]:
    """As it comes from a network."""
    yield content


class Asked:
    """A gate without a network, one question to `ward` in its book, and what the SuperLink got."""

    def __init__(self, folder: Path) -> None:
        self.folder = gates.make_folder(folder)
        gates.join(self.folder, "ward")
        gates.join(self.folder, "clinic")
        self.headers = signed("ward")
        self.passed: list[bytes] = []
        self.said: Mapping[str, bytes] = {}
        self.gate = Gate(
            MemberAuthenticator(self.folder.members, lambda: datetime.now(UTC)),
            Book(self.folder.state / "asked"),
            Largest(self.folder.largest),
            lambda site, size: None,
            Polls(KnownMarks(self.folder.pushed), hold=0.0),
        )

    def reset(self) -> None:
        self.said = {
            "activate-node": gates.activated(),
            "pull-messages": gates.question(),
            "push-messages": b"",
        }
        for said in (gates.activation(), gates.poll()):
            assert self.ask(gates.call_of(said), said.SerializeToString()) == 200
        self.passed.clear()

    def ask(self, call: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        pairs = list((self.headers if headers is None else headers).items())
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return asyncio.run(self._ask(call, body, raw))

    async def _ask(self, call: str, body: bytes, raw: list[tuple[bytes, bytes]]) -> int:
        async def answer(request: httpx.Request) -> httpx.Response:
            self.passed.append(request.content)
            return httpx.Response(200, content=streamed(self.said.get(call, b"")))

        parts = [body[:10], body[10:]]
        codes: list[int] = []

        async def receive() -> dict[str, Any]:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                codes.append(message["status"])

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": raw,
            "query_string": b"",
            "path_params": {"call": call},
            "connection": Place(),
        }
        async with httpx.AsyncClient(
            base_url="https://hub", transport=httpx.MockTransport(answer)
        ) as self.gate.client:
            await self.gate(scope, receive, send)
        (code,) = codes
        return code


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    made = Asked(tmp_path_factory.mktemp("gate"))
    made.reset()
    return made


# Values that the gate looks for, and others of every kind.
INTEGERS = st.sampled_from([0, 1, RUN, RUN + 1, gates.NODE, OTHER_NODE, 2**63, 2**64 - 1])
TEXTS = st.sampled_from([QUESTION, PART, gates.REPLY, gates.ASKED, "", "train", "x"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=70
)
VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_UINT64: INTEGERS,
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.just(0),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
}


def fill(draw: st.DrawFn, message: Any, depth: int = 0) -> Any:
    """Sets fields of a message, at random, down to five levels."""
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        nested = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if nested and (depth >= 4 or field.message_type.GetOptions().map_entry):
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                if nested:
                    fill(draw, value.add(), depth + 1)
                else:
                    value.append(draw(_value(field)))
        elif nested:
            fill(draw, value, depth + 1)
            value.SetInParent()
        else:
            setattr(message, field.name, draw(_value(field)))
    return message


def _value(field: Any) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        own = public_pem(keys("ward").node).encode()
        return st.binary(max_size=100) | st.just(own)
    return VALUES[field.cpp_type]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A call, and a request of its type with any fields."""
    call = draw(st.sampled_from(CALLS))
    return call, fill(draw, REQUESTS[call]()).SerializeToString()


@st.composite
def nearly(draw: st.DrawFn) -> tuple[str, bytes]:
    """What a node says, with some bytes of it changed, gone, or twice there."""
    said = draw(st.sampled_from(HONEST))
    body = bytearray(said.SerializeToString())
    for _ in range(draw(st.integers(0, 4))):
        where = draw(st.integers(0, len(body)))
        kind = draw(st.sampled_from(["set", "cut", "put", "again"]))
        if kind == "set" and where < len(body):
            body[where] = draw(st.integers(0, 255))
        elif kind == "cut":
            del body[where:]
        elif kind == "put":
            body[where:where] = draw(st.binary(max_size=8))
        else:
            body += body[where:]
    return gates.call_of(said), bytes(body)


HONEST = [
    gates.activation(),
    gates.poll(),
    gates.reply(),
    gates.part(),
    gates.fetch(),
    gates.confirm(),
    gates.run_of(),
    gates.bundle_of(),
]


@given(said=requests() | nearly() | st.tuples(st.sampled_from(CALLS), st.binary(max_size=300)))
@settings(deadline=None)
def test_any_request_gets_an_answer_of_the_list(asked: Asked, said: tuple[str, bytes]) -> None:
    """And what is passed on is the member's own: parsed again by what the SuperLink uses."""
    call, body = said
    asked.passed.clear()
    code = asked.ask(call, body)
    assert code in ANSWERS
    for passed in asked.passed:
        assert passed == body
        own(call, passed)


def own(call: str, body: bytes) -> None:
    """Fails unless a request is this member's to make."""
    request: Any = parse(call, body)
    if call == "activate-node":
        assert request.public_key == public_pem(keys("ward").node).encode()
        return
    assert (request.node_id if call == "deactivate-node" else request.node.node_id) == gates.NODE
    if call == "push-messages":
        (message,) = request.messages_list
        told = message.metadata
        assert (told.src_node_id, told.dst_node_id, told.run_id) == (gates.NODE, gates.HUB, RUN)
        assert told.reply_to_message_id == QUESTION
    elif call not in ("pull-messages", "send-node-heartbeat", "deactivate-node"):
        assert request.run_id == RUN


@given(
    call=st.sampled_from([*CALLS, "register-node", ""]) | st.text(max_size=20),
    headers=st.dictionaries(
        st.sampled_from(["flwr-public-key", "flwr-signature", "flwr-timestamp", "content-type"]),
        st.text(st.characters(max_codepoint=255), max_size=60) | st.just("=" * 60),
    ),
)
@settings(deadline=None)
def test_any_headers_get_an_answer_of_the_list(
    asked: Asked, call: str, headers: dict[str, str]
) -> None:
    asked.passed.clear()
    assert asked.ask(call, b"", headers) in (400, 401, 404)
    assert asked.ask(call, b"", asked.headers | headers) in ANSWERS
    assert asked.passed == [] or call in CALLS


@given(content=st.binary(max_size=300), call=st.sampled_from(["activate-node", "pull-messages"]))
@settings(deadline=None)
def test_any_answer_of_the_superlink_s_gets_through_or_is_named(
    tmp_path_factory: pytest.TempPathFactory, asked: Asked, content: bytes, call: str
) -> None:
    asked.said = {call: content}
    said = gates.activation() if call == "activate-node" else gates.poll()
    try:
        assert asked.ask(call, said.SerializeToString()) in (200, 403, 502)
    finally:
        asked.reset()


TREES = st.recursive(
    st.builds(ObjectTree, object_id=TEXTS),
    lambda inner: st.builds(
        ObjectTree, object_id=TEXTS | st.just(PART), children=st.lists(inner, max_size=4)
    ),
    max_leaves=30,
)


@given(tree=TREES)
def test_a_tree_s_objects_are_all_of_its_ids_or_none(tree: ObjectTree) -> None:
    def nodes(node: ObjectTree) -> list[ObjectTree]:
        return [node, *(one for child in node.children for one in nodes(child))]

    rows = [(one.object_id, tuple(c.object_id for c in one.children)) for one in nodes(tree)]
    fine = all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one, _ in rows)
    fine &= all(len(set(parts)) == len(parts) for _, parts in rows) and len(set(rows)) == len(
        dict(rows)
    )
    assert parts_of(tree) == (dict(rows) if fine else None)


HEADS = st.builds(
    lambda kind, parts, length, rest: f"{kind} {parts} {length}".encode() + b"\0" + rest,
    st.sampled_from(["Message", "RecordDict", "ConfigRecord", "Array", "x", ""]),
    st.sampled_from(["", PART, f"{PART},{PART}", ",", "x"]),
    st.integers(-3, 40),
    st.binary(max_size=40),
)


@given(content=st.binary(max_size=200) | HEADS, is_reply=st.booleans())
def test_any_object_is_judged(content: bytes, is_reply: bool) -> None:
    question = PendingQuestion(
        run=RUN,
        kind="train",
        objects=frozenset(),
        ends=1.0,
        reply=gates.REPLY,
        announced={gates.REPLY: (PART,), PART: ()},
    )
    why = why_unfit(content, gates.REPLY if is_reply else PART, QUESTION, question, gates.NODE)
    if why is None:
        assert not is_reply  # no bytes at random say all that a reply says
        assert content.split(b" ")[1] == b""


@given(said=requests())
def test_whoever_was_asked_nothing_pushes_and_fetches_nothing(said: tuple[str, bytes]) -> None:
    call, body = said
    caller = Caller("key", MemberPage(node=gates.NODE), lambda node: False, lambda run: 10**9, 0.0)
    request = parse(call, body)
    assert request is not None
    if judge(request, caller) is None:
        assert call in ("pull-messages", "send-node-heartbeat", "deactivate-node", "activate-node")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["node", "questions", "run", "kind", "ends", "reply", "objects", "x"]),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@given(document=JSON.map(json.dumps).map(str.encode) | st.binary(max_size=200))
@settings(deadline=None)
def test_any_page_and_any_list_of_sizes_can_be_read(asked: Asked, document: bytes) -> None:
    folder = asked.folder.state / "damaged"
    folder.mkdir(exist_ok=True)
    book = Book(folder)
    book._place("key").write_bytes(document)
    assert isinstance(book.page("key"), MemberPage)
    (folder / "largest.json").write_bytes(document)
    assert Largest(folder / "largest.json")(RUN) >= 0
