"""What a member may say through the gate: in its own name, to the coordinator, when asked."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict as FlowerDict
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from cloister.provisioning.node_key import public_pem
from cloister.server import reply_size
from cloister.server.gate import make_server
from cloister.server.gate_book import MOST_QUESTIONS, Book
from cloister.server.gate_objects import MOST_OBJECTS
from cloister.server.reply_size import Largest, note_largest
from tests.support import gate as gates
from tests.support.clock import Clock, TimedGrid
from tests.support.gate import NODE, OTHER_NODE, PART, QUESTION, REPLY, RUN, Gate, ask, open_gate
from tests.support.https import FakeSuperLink, served
from tests.support.papers import keys

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
        changed(gates.reply(), lambda s: s.clientapp_runtime_list.__setitem__(0, -1.0)), 400),
    "a run time that is no number": (
        changed(gates.reply(), lambda s: s.clientapp_runtime_list.__setitem__(0, float("nan"))),
        400),
    "a time that is no number": (
        changed(gates.reply(), lambda s: setattr(metadata(s), "ttl", float("nan"))), 400),
    "an infinite time": (
        changed(gates.reply(), lambda s: setattr(metadata(s), "created_at", float("inf"))), 400),
    "another message's tree": (gates.reply(tree="7" * 64), 400),
    "an id that is none": (gates.reply(message="../b", tree="../b"), 400),
    "an object's id that is none": (gates.reply(objects=("x",)), 400),
    "an id in capitals": (gates.reply(objects=("A" * 64,)), 400),
    "too many objects": (
        gates.reply(objects=tuple(f"{n:064x}" for n in range(MOST_OBJECTS + 1))), 400),
    "an object many times over": (gates.reply(objects=(PART,) * (MOST_OBJECTS + 1)), 400),
    "an object twice": (gates.reply(objects=(PART, PART)), 400),
    "the question as its answer": (gates.reply(message=QUESTION, tree=QUESTION), 403),
    "content beside the objects": (with_content(gates.reply()), 400),
}  # fmt: skip


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


UNFIT: dict[str, Any] = {
    "no object": gates.part(content=b"update"),
    "no head's end": gates.part(content=b"ConfigRecord  6"),
    "a length that is none": gates.part(content=b"ConfigRecord  x\0update"),
    "another length": gates.part(content=b"ConfigRecord  7\0update"),
    "no ASCII": gates.part(content=b"Config\xffRecord  6\0update"),
    "a head without end": gates.part(content=b"x" * 500_000),
    "another type": gates.part(content=gates.item("Pickle")),
    "parts that were not announced": gates.part(content=gates.item(parts=(ELSE,))),
    "a message within the message": gates.part(content=gates.root(parts=())),
    "a dictionary as the message": gates.part(
        object_id=REPLY, content=gates.item("RecordDict", (PART,))),
    "the message without its part": gates.part(object_id=REPLY, content=gates.root(parts=())),
    "a body that is no message": gates.part(
        object_id=REPLY, content=gates.item("Message", (PART,), b"\xff\xff")),
    "content and an error": gates.part(object_id=REPLY, content=gates.root(error=True)),
    "another sender within": gates.part(
        object_id=REPLY, content=gates.root(src_node_id=OTHER_NODE)),
    "the coordinator as the sender within": gates.part(
        object_id=REPLY, content=gates.root(src_node_id=gates.HUB)),
    "another addressee within": gates.part(
        object_id=REPLY, content=gates.root(dst_node_id=OTHER_NODE)),
    "another's question within": gates.part(
        object_id=REPLY, content=gates.root(reply_to_message_id=ELSE)),
    "no question within": gates.part(object_id=REPLY, content=gates.root(reply_to_message_id="")),
    "another run within": gates.part(object_id=REPLY, content=gates.root(run_id=RUN + 1)),
    "another type within": gates.part(object_id=REPLY, content=gates.root(message_type="query")),
}  # fmt: skip


@pytest.mark.parametrize("said", UNFIT.values(), ids=UNFIT.keys())
def test_an_object_is_what_was_announced_and_says_the_same(gate: Gate, said: Any) -> None:
    """The coordinator believes the objects, not the announcement."""
    assert gate.say(said) == 400
    assert gate.link.asked == []


def test_a_message_as_flower_makes_it_is_taken(tmp_path: Path) -> None:
    """Flower's own objects of a reply, all of them, and of an error."""
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    asked = FlowerMessage(FlowerDict(), NODE, "train")
    for content in (FlowerDict({"cloister": ConfigRecord({"delta": b"x" * 1000})}), Error(8, "x")):
        with open_gate(tmp_path / type(content).__name__) as gate:
            reply = FlowerMessage(content, reply_to=asked)
            reply.metadata.__dict__["_run_id"] = RUN
            reply.metadata.__dict__["_src_node_id"] = NODE
            reply.metadata.__dict__["_dst_node_id"] = gates.HUB
            reply.metadata.__dict__["_reply_to_message_id"] = QUESTION
            ask(gate)
            said = gates.reply(message=reply.object_id)
            said.message_object_trees[0].CopyFrom(get_object_tree(reply))
            assert gate.say(said) == 200
            for name, one in get_all_nested_objects(reply).items():
                assert gate.say(gates.part(object_id=name, content=one.deflate())) == 200


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


def test_a_node_that_was_not_yet_known_is_learnt_and_no_other_s_is_taken(tmp_path: Path) -> None:
    """As after an update of the coordinator, where nodes are activated already."""
    with open_gate(tmp_path) as gate:
        gates.join(gate.folder, "clinic")
        gate.link.code = 401  # the SuperLink knows whose key it is
        assert gate.say(gates.poll(OTHER_NODE)) == 401
        gate.link.code, gate.link.said["pull-messages"] = 200, b""
        assert gate.say(gates.poll()) == 200
        assert gate.say(gates.poll(OTHER_NODE)) == 403
        assert gate.say(gates.poll(), "clinic") == 403
        assert gate.say(gates.poll(OTHER_NODE), "clinic") == 200


def test_a_node_that_is_registered_anew_is_another(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        gate.link.said["activate-node"] = gates.activated(70)
        assert gate.say(gates.activation()) == 200
        assert gate.say(gates.poll()) == 403
        assert gate.say(gates.reply(70, 70)) == 403  # asked of the node before
        assert gate.say(gates.poll(70)) == 200


def test_a_question_that_is_over_is_answered_no_more(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate, ttl=-1.0)
        assert gate.say(gates.reply()) == 403


def test_a_reply_that_the_superlink_did_not_take_may_be_another(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        gate.link.code = 500
        assert gate.say(gates.reply()) == 500
        assert gate.say(gates.part()) == 403
        gate.link.code = 200
        assert gate.say(gates.reply(message="8" * 64)) == 200


def test_only_so_many_questions_are_remembered_and_open_ones_longest(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        ask(gate)
        names = [f"{number:064x}" for number in range(MOST_QUESTIONS)]
        for name in names:
            ask(gate, message=name)
            if name != names[0]:
                said = gates.reply(question=name, message=name[::-1], objects=())
                assert gate.say(said) == 200
        page = Book(gate.folder.state / "asked").page(public_pem(keys("ward").node))
        assert len(page.questions) == MOST_QUESTIONS
        assert {QUESTION, names[0]} <= set(page.questions)


def test_a_gate_that_starts_anew_in_a_round_takes_the_replies(tmp_path: Path) -> None:
    """Asked by one gate, announced through a second, pushed through a third."""
    folder, link = gates.make_folder(tmp_path), FakeSuperLink()
    gates.join(folder, "ward")
    gate = Gate(folder, link)
    with gates.behind(folder, link):
        with served(make_server(folder)):
            ask(gate)
        with served(make_server(folder)):
            assert gate.say(gates.reply(question="9" * 64)) == 403
            assert gate.say(gates.reply()) == 200
        with served(make_server(folder)):
            assert gate.say(gates.part(object_id=ELSE)) == 403
            assert gate.say(gates.part()) == 200
            assert gate.say(gates.fetch()) == 200
            assert gate.say(gates.confirm()) == 200


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"node": 7, "questions": [1]}', None])
def test_a_page_that_is_lost_costs_one_question(tmp_path: Path, damage: bytes | None) -> None:
    folder, link = gates.make_folder(tmp_path), FakeSuperLink()
    gates.join(folder, "ward")
    gate = Gate(folder, link)
    with gates.behind(folder, link):
        with served(make_server(folder)):
            ask(gate)
        (page,) = (folder.state / "asked").iterdir()
        if damage is None:
            page.unlink()
        else:
            page.write_bytes(damage)
        with served(make_server(folder)):
            assert gate.say(gates.reply()) == 403
            assert gate.say(gates.poll()) == 200  # the coordinator asks again
            assert gate.say(gates.reply()) == 200


def test_an_answer_of_the_superlink_that_cannot_be_read_is_not_passed_on(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        for call, said in (("pull-messages", gates.poll()), ("activate-node", gates.activation())):
            gate.link.said[call] = b"\xff\xff"
            assert gate.say(said) == 502


# How large a reply may be.


def test_a_reply_is_as_large_as_its_study_says_in_all_its_objects(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        note_largest(gate.folder.largest, RUN, 1000)
        ask(gate)
        assert gate.say(gates.reply(objects=(PART, ELSE))) == 200
        assert gate.say(gates.part(content=gates.item(size=600))) == 200
        assert gate.say(gates.part(content=gates.item(size=600))) == 200  # the same once more
        assert gate.say(gates.part(object_id=ELSE, content=gates.item(size=401))) == 413
        assert gate.say(gates.part(object_id=ELSE, content=gates.item(size=400))) == 200
        gate.link.asked.clear()
        assert gate.say(gates.part(content=gates.item(size=600_000))) == 413  # before it is read
        assert gate.link.asked == []


def test_without_a_study_there_is_a_bound_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_size, "WITHOUT_STUDY", 1000)
    with open_gate(tmp_path) as gate:
        ask(gate)
        assert gate.say(gates.reply()) == 200
        assert gate.say(gates.part(content=gates.item(size=1001))) == 413
        assert gate.say(gates.part(content=gates.item(size=1000))) == 200


def test_who_owes_no_reply_pushes_nothing(tmp_path: Path) -> None:
    with open_gate(tmp_path) as gate:
        gate.link.said["activate-node"] = gates.activated()
        assert gate.say(gates.activation()) == 200
        assert gate.say(gates.part(content=gates.item(size=100_000))) == 413
        assert gate.say(gates.part()) == 403


def test_the_largest_reply_is_read_anew_and_damage_leaves_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "largest.json"
    largest = Largest(path)
    assert largest(1) == reply_size.WITHOUT_STUDY
    note_largest(path, 1, 5_000_000)
    note_largest(path, 2, 10**12)
    assert (largest(1), largest(2), largest(3)) == (
        5_000_000, reply_size.LARGEST, reply_size.WITHOUT_STUDY)  # fmt: skip
    for run in range(100):
        note_largest(path, run, run)
    assert (largest(99), len(json.loads(path.read_text()))) == (99, reply_size.MOST_RUNS)
    path.write_text("[]")
    assert largest(99) == reply_size.WITHOUT_STUDY
    note_largest(tmp_path / "none" / "largest.json", 1, 1)  # a full disk stops nobody


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
