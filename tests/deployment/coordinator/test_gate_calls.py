"""A member may only call the gate in its own name, for the coordinator, and when asked."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import RecordDict

from cloister.deployment.coordinator.gate_objects import MOST_OBJECTS
from tests.support import gate as gates
from tests.support.gate import NODE, OTHER_NODE, PART, QUESTION, REPLY, RUN, Gate, ask, open_gate

ELSE = "e" * 64


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate at which two members are activated; `ward` is asked a question, and `clinic` one."""
    with open_gate(tmp_path_factory.mktemp("gate")) as gate:
        gates.join(gate.folder, "clinic")
        ask(gate)
        ask(gate, "clinic", OTHER_NODE, run=RUN + 1, message=ELSE)
        assert gate.say(gates.reply()) == 200
        yield gate


@pytest.fixture
def gate(shared: Gate) -> Gate:
    shared.link.asked.clear()
    return shared


def two_messages() -> Any:
    both = gates.reply()
    both.MergeFrom(gates.reply())
    return both


def changed(said: Any, change: Callable[[Any], object]) -> Any:
    change(said)
    return said


def with_content(said: Any) -> Any:
    content = RecordDict()
    content.items.add().key = "cloister"
    said.messages_list[0].content.CopyFrom(content)
    return said


def nested(number: int, inner: bytes) -> bytes:
    """A field that holds a message, as it travels."""
    assert len(inner) < 2**14
    return bytes([number << 3 | 2, len(inner) & 0x7F | 0x80, len(inner) >> 7]) + inner


def too_deep(levels: int = 150) -> bytes:
    """A reply whose tree has more levels than protobuf reads."""
    tree = b""
    for _ in range(levels):
        tree = nested(ObjectTree.CHILDREN_FIELD_NUMBER, tree)
    whole = nested(PushMessagesRequest.MESSAGE_OBJECT_TREES_FIELD_NUMBER, tree)
    return bytes(gates.reply().SerializeToString()) + whole


def metadata(said: Any) -> Any:
    return said.messages_list[0].metadata


REFUSED: dict[str, tuple[Any, int]] = {
    # In another's name.
    "a poll for another's questions": (gates.poll(OTHER_NODE), 403),
    "another's node leaves": (gates.leave(OTHER_NODE), 403),
    "the coordinator's node": (gates.poll(gates.HUB), 403),
    "no node": (PushMessagesRequest(), 403),
    "a node of nobody's": (gates.poll(99), 403),
    "another's key": (gates.activation("clinic"), 403),
    "no key": (gates.activation().__class__(), 403),
    "a forged sender": (gates.reply(source=OTHER_NODE), 403),
    "the coordinator as the sender": (gates.reply(source=gates.HUB), 403),
    "a reply by another's node": (gates.reply(node=OTHER_NODE, source=OTHER_NODE), 403),
    # To somebody else.
    "a question to another site": (gates.reply(to=OTHER_NODE), 403),
    "a question to itself": (gates.reply(to=NODE), 403),
    "to nobody": (gates.reply(to=0), 403),
    # About what it was not asked.
    "a reply to nothing": (gates.reply(question=""), 403),
    "a reply to what nobody asked": (gates.reply(question="9" * 64), 403),
    "a reply to another's question": (gates.reply(question=ELSE, run=RUN + 1), 403),
    "a reply in another run": (gates.reply(run=RUN + 1), 403),
    "a reply of another type": (gates.reply(kind="query"), 403),
    "no type": (gates.reply(kind=""), 403),
    "a second reply to one question": (gates.reply(message="8" * 64), 403),
    "an object that nothing announced": (gates.part(object_id=ELSE), 403),
    "an announced object in another run": (gates.part(run=RUN + 1), 403),
    "an object of the question": (gates.part(object_id=gates.ASKED), 403),
    "an object by another's node": (gates.part(node=OTHER_NODE), 403),
    "an object of another's question": (gates.fetch(object_id=ELSE), 403),
    "its own object back": (gates.fetch(object_id=PART), 403),
    "a question's object in another run": (gates.fetch(run=RUN + 1), 403),
    "another's question thrown away": (gates.confirm(question=ELSE, run=RUN + 1), 403),
    "a reply thrown away": (gates.confirm(question=REPLY), 403),
    "a question thrown away in another run": (gates.confirm(run=RUN + 1), 403),
    "another's run": (gates.run_of(run=RUN + 1), 403),
    "another's bundle": (gates.bundle_of(run=RUN + 1), 403),
    # Malformed.
    "two messages": (two_messages(), 400),
    "no message": (changed(gates.reply(), lambda said: said.ClearField("messages_list")), 400),
    "no tree": (changed(gates.reply(), lambda said: said.ClearField("message_object_trees")), 400),
    "two run times": (changed(gates.reply(), lambda s: s.clientapp_runtime_list.append(1)), 400),
    "a run time below zero": (
        changed(gates.reply(), lambda s: s.clientapp_runtime_list.__setitem__(0, -1.0)),
        400,
    ),
    "a run time that is no number": (
        changed(gates.reply(), lambda s: s.clientapp_runtime_list.__setitem__(0, float("nan"))),
        400,
    ),
    "a time that is no number": (
        changed(gates.reply(), lambda s: setattr(metadata(s), "ttl", float("nan"))),
        400,
    ),
    "an infinite time": (
        changed(gates.reply(), lambda s: setattr(metadata(s), "created_at", float("inf"))),
        400,
    ),
    "another message's tree": (gates.reply(tree="7" * 64), 400),
    "an id that is none": (gates.reply(message="../b", tree="../b"), 400),
    "an object's id that is none": (gates.reply(objects=("x",)), 400),
    "an id in capitals": (gates.reply(objects=("A" * 64,)), 400),
    "too many objects": (
        gates.reply(objects=tuple(f"{n:064x}" for n in range(MOST_OBJECTS + 1))),
        400,
    ),
    "an object many times over": (gates.reply(objects=(PART,) * (MOST_OBJECTS + 1)), 400),
    "an object twice": (gates.reply(objects=(PART, PART)), 400),
    "the question as its answer": (gates.reply(message=QUESTION, tree=QUESTION), 403),
    "content beside the objects": (with_content(gates.reply()), 400),
}


@pytest.mark.parametrize(("said", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_member_speaks_for_itself_about_what_it_was_asked(
    gate: Gate, said: Any, code: int
) -> None:
    assert gate.say(said) == code
    assert gate.link.asked == []


@pytest.mark.parametrize("call", ["push-messages", "pull-messages", "push-object", "activate-node"])
@pytest.mark.parametrize("body", [b"body", b"\xff" * 9, b"\x0a\x80", b"{}", b"\x0a\x09\x08"])
def test_what_is_no_request_is_refused(gate: Gate, call: str, body: bytes) -> None:
    assert gate.post(gates.signed("ward"), call, body) == 400
    assert gate.link.asked == []


def test_a_tree_that_is_too_deep_to_read_is_refused(gate: Gate) -> None:
    assert gate.post(gates.signed("ward"), "push-messages", too_deep()) == 400


def test_a_reply_may_be_announced_and_pushed_again(gate: Gate) -> None:
    """A SuperNode repeats a call whose answer was lost."""
    for said in (gates.reply(), gates.part(), gates.reply(), gates.part()):
        assert gate.say(said) == 200
    assert len(gate.link.asked) == 4


def test_an_error_is_a_reply_too(gate: Gate) -> None:
    said = gates.reply(objects=())
    said.messages_list[0].error.code = 8
    assert gate.say(said) == 200


def test_another_member_answers_its_own_question(gate: Gate) -> None:
    said = gates.reply(OTHER_NODE, OTHER_NODE, run=RUN + 1, question=ELSE, message="6" * 64)
    assert gate.say(said, "clinic") == 200


def test_headers_beyond_a_node_s_are_refused(gate: Gate) -> None:
    many = {f"x-{number}": "y" for number in range(100)}
    assert gate.post(gates.signed("ward") | many) == 431
    text = gates.head(
        f"POST /v1/fleet/{gates.CALL} HTTP/1.1", gates.signed("ward") | {"flwr-x": "é"}
    )
    assert gates.status_of(gate.raw(text)) == 400
    encoded = base64.b64encode(b"k" * 20_000).decode()
    assert gate.post(gates.signed("ward") | {"flwr-public-key": encoded}) in (400, 431)
    assert gate.link.asked == []


def test_a_heartbeat_s_node_is_checked(gate: Gate) -> None:
    assert gate.post(gates.signed("ward"), body=gates.heartbeat(OTHER_NODE)) == 403
    assert gate.post(gates.signed("ward")) == 200
