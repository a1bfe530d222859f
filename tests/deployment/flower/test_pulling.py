"""What a member pushed is attributed to that member, whatever the message claims."""

import hashlib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.proto.message_pb2 import Metadata
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_id,
)

from cloister.deployment.flower.pulling import read_pulled
from cloister.protocol.exchange import RECORD
from tests.support.clock import Clock, TimedGrid

RECORDS = RecordDict({RECORD: ConfigRecord({"site": "a"})})


def objects(whole: InflatableObject) -> tuple[str, dict[str, bytes]]:
    """An object's id, and the bytes of all that it is made of."""
    parts = {name: part.deflate() for name, part in get_all_nested_objects(whole).items()}
    return get_object_id(whole.deflate()), parts


def pulled(name: str, parts: dict[str, bytes]) -> Message:
    """What the coordinator makes of it, where the SuperLink knows node 7 and question `asked`."""
    outside = Metadata(
        run_id=1,
        message_id=name,
        src_node_id=7,
        dst_node_id=1,
        reply_to_message_id="asked",
        message_type="train",
        created_at=1.0,
        ttl=60.0,
    )
    found = read_pulled(outside, parts)
    assert (found.metadata.src_node_id, found.metadata.reply_to_message_id) == (7, "asked")
    return found


def message(content: RecordDict | Error) -> Message:
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    ask = Message(RecordDict(), 1, "train")
    ask.metadata.__dict__["_message_id"] = "another question"
    return Message(content, reply_to=ask)


def test_a_message_is_read_and_answers_what_its_sender_was_asked() -> None:
    found = pulled(*objects(message(RECORDS)))
    assert dict(found.content[RECORD]) == {"site": "a"}
    assert found.metadata.reply_to_message_id == "asked"  # and not "another question"
    assert pulled(*objects(message(Error(8, "x")))).error.code == 8


def nested(depth: int) -> tuple[str, dict[str, bytes]]:
    """An object in an object in an object."""
    parts, child = {}, ""
    for _ in range(depth):
        content = f"RecordDict {child} 0\x00".encode()
        child = hashlib.sha256(content).hexdigest()
        parts[child] = content
    return child, parts


def forged(content: bytes) -> tuple[str, dict[str, bytes]]:
    name = hashlib.sha256(content).hexdigest()
    return name, {name: content}


NO_MESSAGE = {
    "a RecordDict": objects(RECORDS),
    "a ConfigRecord": objects(ConfigRecord({"site": "a"})),
    "arrays": objects(ArrayRecord({"w": Array(np.zeros(2))})),
    "nested 5,000 deep": nested(5000),
    "an object that is not there": ("0" * 64, {}),
    "an unknown class": forged(b"Secrets  0\x00"),
    "a message without its parts": forged(b"Message " + b"0" * 64 + b" 0\x00"),
    "a message of no form": forged(b"Message  3\x00\xff\xff\xff"),
    "no head": forged(b"\xff" * 10),
    "nothing": forged(b""),
}


@pytest.mark.parametrize("given", NO_MESSAGE.values(), ids=NO_MESSAGE.keys())
def test_what_is_no_message_is_one_without_records(given: tuple[str, dict[str, bytes]]) -> None:
    found = pulled(*given)
    assert found.has_content()
    assert len(found.content) == 0
