"""A reply that cannot be read, or never comes, ends no round and delays no other site."""

from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from hypothesis import given
from hypothesis import strategies as st

from cloister.deployment.flower.replies_on_arrival import Arrivals
from tests.support.clock import Clock, TimedGrid

NODE, OTHER = 7, 8


class Store:
    """Objects as the SuperLink has them."""

    def __init__(self) -> None:
        TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
        self.objects: dict[str, bytes] = {}
        self.now = 0.0
        self.arrivals = Arrivals(15.0, lambda: self.now)

    def reply(self, content: Any, question: str = "question", **changes: Any) -> Message:
        message = Message(content, reply_to=Message(RecordDict(), NODE, "train"))
        fields = {"src_node_id": NODE, "dst_node_id": 1, "reply_to_message_id": question} | changes
        for name, value in fields.items():
            message.metadata.__dict__[f"_{name}"] = value
        message.metadata.__dict__["_message_id"] = message.object_id
        return message

    def put(self, message: Message, told: Any = None, *, late: bool = False) -> None:
        """Announces a message, and stores its objects unless they come later."""
        proto = message_to_proto(message)
        for name, value in (told or {}).items():
            setattr(proto.metadata, name, value)
        self.arrivals.add([proto], [get_object_tree(message)])
        if not late:
            self.store(message)

    def store(self, message: Message) -> None:
        self.objects |= {
            name: one.deflate() for name, one in get_all_nested_objects(message).items()
        }

    def pull(self, object_id: str) -> PullObjectResponse:
        content = self.objects.get(object_id)
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def take(self) -> list[Message]:
        return [message for _, message in self.arrivals.take(self.pull)]


FINE = {"cloister": ConfigRecord({"delta": b"x"})}


def test_a_reply_comes_once_all_of_it_is_there() -> None:
    store = Store()
    slow, fast = store.reply(RecordDict(FINE), "slow"), store.reply(RecordDict(FINE), "fast")
    store.put(slow, late=True)
    store.put(fast)
    (first,) = store.take()  # nobody waits for the other
    assert first.metadata.reply_to_message_id == "fast"
    assert first.content["cloister"] == FINE["cloister"]
    assert store.take() == []
    store.store(slow)
    (second,) = store.take()
    assert second.metadata.reply_to_message_id == "slow"
    assert store.take() == []


def test_a_reply_whose_objects_do_not_come_is_an_error_in_the_end() -> None:
    store = Store()
    reply = store.reply(RecordDict(FINE))
    store.put(reply, late=True)
    store.now = 15.0
    assert store.take() == []
    store.now = 15.1
    (lost,) = store.take()
    assert (lost.has_error(), lost.metadata.reply_to_message_id) == (True, "question")
    assert lost.metadata.src_node_id == NODE


def test_a_reply_that_comes_slowly_is_waited_for() -> None:
    store = Store()
    reply = store.reply(RecordDict(FINE))
    store.put(reply, late=True)
    for name, one in get_all_nested_objects(reply).items():
        store.now += 14.0
        assert store.take() == []
        store.objects[name] = one.deflate()
    (message,) = store.take()
    assert message.has_content()


def test_a_reply_that_the_superlink_no_longer_has_is_an_error_at_once() -> None:
    store = Store()
    store.put(store.reply(RecordDict(FINE)), late=True)
    (lost,) = [m for _, m in store.arrivals.take(lambda name: PullObjectResponse())]
    assert lost.has_error()


def test_an_error_is_passed_on() -> None:
    store = Store()
    store.put(store.reply(Error(8, "why")))
    (message,) = store.take()
    assert (message.has_error(), message.error.code) == (True, 8)


def test_who_sent_a_reply_is_what_the_superlink_noted() -> None:
    """The message's own object says what its sender likes."""
    store = Store()
    forged = store.reply(RecordDict(FINE), "another's", src_node_id=OTHER)
    store.put(forged, {"src_node_id": NODE, "reply_to_message_id": "its own"})
    (message,) = store.take()
    assert message.metadata.src_node_id == NODE
    assert message.metadata.reply_to_message_id == "its own"


@pytest.mark.parametrize("kind", ["a dictionary", "a record", "cut", "a part missing", "nothing"])
def test_a_reply_that_cannot_be_read_has_no_content_and_the_next_is_read(kind: str) -> None:
    store = Store()
    reply, fine = store.reply(RecordDict(FINE), "bad"), store.reply(RecordDict(FINE), "fine")
    store.put(reply)
    name = reply.object_id
    if kind == "a dictionary":
        store.objects[name] = RecordDict(FINE).deflate()
    elif kind == "a record":
        store.objects[name] = ArrayRecord().deflate()
    elif kind == "cut":
        store.objects[name] = store.objects[name][:-5]
    elif kind == "a part missing":
        other = store.reply(RecordDict({}), "bad")
        store.objects[name] = other.deflate()
    else:
        store.objects[name] = b"nothing"
    store.put(fine)
    bad, good = store.take()
    assert (bad.has_content(), list(bad.content)) == (True, [])
    assert bad.metadata.reply_to_message_id == "bad"
    assert good.content["cloister"] == FINE["cloister"]


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3))
def test_any_objects_become_a_message(contents: list[bytes]) -> None:
    store = Store()
    reply = store.reply(RecordDict(FINE))
    names = [f"{number:064x}" for number in range(len(contents))]
    tree = ObjectTree(object_id=names[0], children=[ObjectTree(object_id=n) for n in names[1:]])
    proto = message_to_proto(reply)
    proto.metadata.message_id = names[0]
    store.arrivals.add([proto], [tree])
    store.objects = dict(zip(names, contents, strict=True))
    (message,) = store.take()
    assert message.metadata.reply_to_message_id == "question"
