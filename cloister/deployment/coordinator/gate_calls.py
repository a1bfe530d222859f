"""The rules on members' calls: each of Flower's calls is parsed, then allowed or refused.

A SuperLink trusts what a node's messages state: sender, receiver and run. So the gate reads them
first. A member may act only as its own node and write only to the coordinator; it answers each
question once; and it pushes and fetches only the objects that belong to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from google.protobuf.message import DecodeError, Message

from cloister.deployment.coordinator.gate_book import MemberPage
from cloister.deployment.coordinator.gate_objects import MOST_OBJECTS, parts_of, why_unfit

# The calls of a SuperNode with a registered key; only the coordinator registers and unregisters.
REQUESTS: Mapping[str, type[Message]] = {
    "activate-node": ActivateNodeRequest,
    "deactivate-node": DeactivateNodeRequest,
    "send-node-heartbeat": SendNodeHeartbeatRequest,
    "pull-messages": PullMessagesRequest,
    "push-messages": PushMessagesRequest,
    "get-run": GetRunRequest,
    "get-fab": GetFabRequest,
    "push-object": PushObjectRequest,
    "pull-object": PullObjectRequest,
    "confirm-message-received": ConfirmMessageReceivedRequest,
}
CALLS = tuple(REQUESTS)
# Most bytes of a request: of ids and a key; of an announcement of the most objects, 64 hex digits
# each, with an error's text; and of a push besides its object, ids and a session.
SMALL_BODY, ANNOUNCEMENT, AROUND_OBJECT = 16_384, 65_536, 4_096


@dataclass(frozen=True)
class Refusal:
    """Why a member's call is not forwarded.

    Attributes:
        code: HTTP status. 403 if this member may not make the call: its SuperNode logs that, drops
            the message and goes on. At 401 it would end, and at 503 it would retry for ever.
        why: The reason in words.
    """

    code: int
    why: str


@dataclass(frozen=True)
class Caller:
    """The member that makes a call.

    Attributes:
        key: Its node's key in PEM, as the request's headers show it.
        page: Its questions and replies.
        is_anothers: Returns whether a node id belongs to another member.
        largest: Returns the bytes of the largest reply in a run.
        now: Seconds since 1970.
    """

    key: str
    page: MemberPage
    is_anothers: Callable[[int], bool]
    largest: Callable[[int], int]
    now: float

    @property
    def largest_reply(self) -> int:
        """Bytes of the largest reply to its open questions."""
        runs = {question.run for question in self.page.questions.values()}
        return max((self.largest(run) for run in runs), default=0)


def largest_body(call: str, caller: Caller) -> int:
    """Returns the most bytes that a request may have, before any of it is read."""
    if call == "push-object":
        return caller.largest_reply + AROUND_OBJECT
    return ANNOUNCEMENT if call == "push-messages" else SMALL_BODY


def parse(call: str, body: bytes) -> Message | None:
    """Parses a call's request; None if the bytes are not a valid one."""
    request = REQUESTS[call]()
    try:
        request.ParseFromString(body)
    except DecodeError:
        return None
    return request


def judge(request: Message, caller: Caller) -> Refusal | None:
    """Returns why a member may not make a call; None if it may."""
    if isinstance(request, ActivateNodeRequest):
        own = request.public_key == caller.key.encode()
        return None if own else Refusal(403, "another node's key")
    node = node_of(request)
    page = caller.page
    if node in (0, SUPERLINK_NODE_ID) or (page.node and node != page.node):
        return Refusal(403, "not this member's node")
    if not page.node and caller.is_anothers(node):
        return Refusal(403, "another member's node")
    match request:
        case PushMessagesRequest():
            return _judge_reply(request, caller)
        case PushObjectRequest():
            return _judge_object(request, caller)
        case PullObjectRequest():
            asked = _asked(page, request.run_id, caller.now)
            if not any(request.object_id in page.questions[key].objects for key in asked):
                return Refusal(403, "not part of a question to this member")
        case ConfirmMessageReceivedRequest():
            if request.message_object_id not in _asked(page, request.run_id, caller.now):
                return Refusal(403, "not a question to this member")
        case GetRunRequest() | GetFabRequest():
            if not _asked(page, request.run_id, caller.now):
                return Refusal(403, "not a run in which this member is asked")
    return None


def node_of(request: Message) -> int:
    """The node id that a request states; 0 if it has or needs none."""
    if isinstance(request, ActivateNodeRequest):
        return 0
    named: Any = request
    return int(named.node_id if isinstance(request, DeactivateNodeRequest) else named.node.node_id)


def _judge_reply(request: PushMessagesRequest, caller: Caller) -> Refusal | None:
    """Why a message is not this member's reply to one of its questions; None if it is."""
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return Refusal(400, "not one message with its tree of objects")
    message, tree = request.messages_list[0], request.message_object_trees[0]
    said, times = message.metadata, list(request.clientapp_runtime_list)
    if len(times) > 1 or not all(math.isfinite(seconds) and seconds >= 0 for seconds in times):
        return Refusal(400, "not one run time in seconds")
    if not (math.isfinite(said.created_at) and math.isfinite(said.ttl)):
        return Refusal(400, "a time that is not finite")
    if message.content.ByteSize():
        return Refusal(400, "a message's content travels as objects")
    if tree.object_id != said.message_id or parts_of(tree) is None:
        return Refusal(400, f"not the tree of one message of at most {MOST_OBJECTS} objects")
    if said.src_node_id != caller.page.node:
        return Refusal(403, "sent in another node's name")
    if said.dst_node_id != SUPERLINK_NODE_ID:
        return Refusal(403, "not to the coordinator")
    if said.reply_to_message_id not in _asked(caller.page, said.run_id, caller.now):
        return Refusal(403, "not a reply to a question to this member in this run")
    question = caller.page.questions[said.reply_to_message_id]
    if said.message_type != question.kind:
        return Refusal(403, "not of the question's type")
    if question.reply not in ("", said.message_id):
        return Refusal(403, "a second reply to one question")
    others = [one for one in caller.page.questions.values() if one is not question]
    if said.message_id in question.objects or any(
        said.message_id == one.reply or said.message_id in one.objects for one in others
    ):
        return Refusal(403, "the same message id was announced with other content before")
    return None


def _judge_object(request: PushObjectRequest, caller: Caller) -> Refusal | None:
    """Why an object may not be pushed: it must belong to a reply within the size limit; None if it
    may."""
    key = caller.page.announcing(request.run_id, request.object_id)
    if key is None:
        return Refusal(403, "not announced by a reply of this member in this run")
    most = caller.largest(request.run_id)
    if caller.page.size_with(key, request.object_id, len(request.object_content)) > most:
        return Refusal(413, f"a reply of more than {most} bytes")
    why = why_unfit(
        request.object_content,
        request.object_id,
        key,
        caller.page.questions[key],
        caller.page.node,
    )
    return None if why is None else Refusal(400, why)


def _asked(page: MemberPage, run: int, now: float) -> list[str]:
    """Ids of the questions to a member in a run that may still be answered."""
    return [key for key, one in page.questions.items() if one.run == run and one.ends > now]
