"""Checks a member's objects: they must be the announced parts of its reply, and no other message.

Flower sends a message as a tree of objects, each with the ids of its parts in its head. The
receiver trusts what the objects state: sender, question and parts. So the gate reads every object's
head, and the whole object of a message.

    object = type, space, ids of its parts with commas, space, length of its body, NUL, body
"""

from __future__ import annotations

from collections.abc import Mapping

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

from cloister.deployment.coordinator.gate_book import PendingQuestion

# Most objects of one message. A reply of ours has three: message, dictionary, and one record.
MOST_OBJECTS = 256
# Flower names objects and messages by SHA-256 in hex, and prints it in lower case.
ID_LENGTH, ID_DIGITS = 64, frozenset("0123456789abcdef")
# Most bytes of a head: the ids of the most parts, a type and a number.
LONGEST_HEAD = MOST_OBJECTS * (ID_LENGTH + 1) + 100
# The types of objects in a reply (`inflatable_class_registry` in Flower's `inflatable_utils`).
MESSAGE = "Message"
KINDS = frozenset(
    {MESSAGE, "RecordDict", "ConfigRecord", "MetricRecord", "ArrayRecord", "Array", "ArrayChunk"}
)

Parts = Mapping[str, tuple[str, ...]]  # ids of each object's parts, by its own


def parts_of(tree: ObjectTree, most: int = MOST_OBJECTS) -> Parts | None:
    """A message's objects with their parts.

    Returns:
        None if there are more than `most`, an id is invalid, or an object occurs twice with
        different parts.
    """
    found: dict[str, tuple[str, ...]] = {}
    left, count = [tree], 0
    while left:
        node = left.pop()
        count += 1
        parts = tuple(child.object_id for child in node.children)
        if count > most or not _is_id(node.object_id) or len(set(parts)) < len(parts):
            return None
        if found.setdefault(node.object_id, parts) != parts:
            return None
        left.extend(node.children)
    return found


def why_unfit(
    content: bytes, object_id: str, question_id: str, question: PendingQuestion, node: int
) -> str | None:
    """Why an object is not the announced part of a reply; None if it is.

    Args:
        content: The object. The SuperLink checks that its id is its SHA-256.
        object_id: Its id, which the question's reply announced.
        question_id: Id of the question.
        question: The question with its reply.
        node: The member's node id.
    """
    end = content.find(b"\0", 0, LONGEST_HEAD)
    try:
        kind, listed, length = content[: max(end, 0)].decode("ascii").split(" ")
        body_length = int(length)
    except ValueError:  # no head, not ASCII, or not a number
        return "not an object"
    if kind not in KINDS or body_length != len(content) - end - 1:
        return "not an object"
    if sorted(listed.split(",") if listed else []) != sorted(question.announced[object_id]):
        return "an object with other parts than were announced"
    if (kind == MESSAGE) != (object_id == question.reply):
        return "a message within a message, or none where one was announced"
    if kind == MESSAGE:
        return _why_another(content[end + 1 :], question_id, question, node)
    return None


def _why_another(body: bytes, question_id: str, question: PendingQuestion, node: int) -> str | None:
    """Why a message's own object contradicts its announcement; None if it does not."""
    message = ProtoMessage()
    try:
        message.ParseFromString(body)
    except DecodeError:
        return "not a message"
    said, parts = message.metadata, question.announced[question.reply]
    if message.HasField("content") or len(parts) != (not message.HasField("error")):
        return "a message without an error must have its content as one part"
    same = (
        said.src_node_id == node
        and said.dst_node_id == SUPERLINK_NODE_ID
        and said.run_id == question.run
        and said.reply_to_message_id == question_id
        and said.message_type == question.kind
    )
    return None if same else "a message that differs from its announcement"


def _is_id(text: str) -> bool:
    return len(text) == ID_LENGTH and set(text) <= ID_DIGITS
