"""A member's objects have a fixed form, and a reply's objects have a bounded size."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict as FlowerDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from cloister.adapter.formats import WIDTH
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.deployment.coordinator import reply_size
from cloister.deployment.coordinator.reply_size import Largest, largest_reply, note_largest
from tests.support import gate as gates
from tests.support.clock import Clock, TimedGrid
from tests.support.gate import NODE, OTHER_NODE, PART, QUESTION, REPLY, RUN, Gate, ask, open_gate

ELSE = "e" * 64


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate at which a member announced its reply."""
    with open_gate(tmp_path_factory.mktemp("gate")) as gate:
        ask(gate)
        assert gate.say(gates.reply()) == 200
        yield gate


@pytest.fixture
def gate(shared: Gate) -> Gate:
    shared.link.asked.clear()
    return shared


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
        object_id=REPLY, content=gates.item("RecordDict", (PART,))
    ),
    "the message without its part": gates.part(object_id=REPLY, content=gates.root(parts=())),
    "a body that is no message": gates.part(
        object_id=REPLY, content=gates.item("Message", (PART,), b"\xff\xff")
    ),
    "content and an error": gates.part(object_id=REPLY, content=gates.root(error=True)),
    "another sender within": gates.part(
        object_id=REPLY, content=gates.root(src_node_id=OTHER_NODE)
    ),
    "the coordinator as the sender within": gates.part(
        object_id=REPLY, content=gates.root(src_node_id=gates.HUB)
    ),
    "another addressee within": gates.part(
        object_id=REPLY, content=gates.root(dst_node_id=OTHER_NODE)
    ),
    "another's question within": gates.part(
        object_id=REPLY, content=gates.root(reply_to_message_id=ELSE)
    ),
    "no question within": gates.part(object_id=REPLY, content=gates.root(reply_to_message_id="")),
    "another run within": gates.part(object_id=REPLY, content=gates.root(run_id=RUN + 1)),
    "another type within": gates.part(object_id=REPLY, content=gates.root(message_type="query")),
}


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


def test_the_largest_reply_holds_a_study_s_updates_in_every_form() -> None:
    adapter = Adapter({"a": np.ones((300, 8), np.float32), "b": np.ones((1000,), np.float32)})
    size = largest_reply(adapter)
    for dtype in WIDTH:
        assert len(encode(adapter, dtype)) + 1_000_000 < size
    assert 4 * 3400 + 1_000_000 < size < 4 * 3400 + 5_000_000  # masked, 32 bits a value


def test_the_largest_reply_is_read_anew_and_damage_leaves_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "largest.json"
    largest = Largest(path)
    assert largest(1) == reply_size.WITHOUT_STUDY
    note_largest(path, 1, 5_000_000)
    note_largest(path, 2, 10**12)
    assert (largest(1), largest(2), largest(3)) == (
        5_000_000,
        reply_size.LARGEST,
        reply_size.WITHOUT_STUDY,
    )
    for run in range(100):
        note_largest(path, run, run)
    assert (largest(99), len(json.loads(path.read_text()))) == (99, reply_size.MOST_RUNS)
    path.write_text("[]")
    assert largest(99) == reply_size.WITHOUT_STUDY
    note_largest(tmp_path / "none" / "largest.json", 1, 1)  # a full disk stops nobody
