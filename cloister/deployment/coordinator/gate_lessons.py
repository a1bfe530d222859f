"""Updates the gate's stored state from a member's call and the SuperLink's answer."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import PushObjectRequest
from google.protobuf.message import DecodeError, Message

from cloister.deployment.coordinator.gate_book import Book, PendingQuestion
from cloister.deployment.coordinator.gate_calls import Caller, node_of
from cloister.deployment.coordinator.gate_objects import parts_of

# Calls whose answers the gate reads before the member gets them.
READ_WHOLE = ("activate-node", "pull-messages", "push-messages")
# Most objects of a question: a bound against an endless tree.
MOST_IN_QUESTION = 100_000
INVALID_ANSWER = "the SuperLink's answer cannot be read"


@dataclass
class Lesson:
    """The state changes that one call and its answer cause.

    Attributes:
        book: What each member was asked.
        caller: The member that calls.
        said: The allowed call.
    """

    book: Book
    caller: Caller
    said: Message
    _before: PendingQuestion | None = None

    def before(self) -> None:
        """Stores what the call states: a reply's id and objects, or an object's size."""
        page, said = self.caller.page, self.said
        if isinstance(said, PushMessagesRequest):
            metadata, tree = said.messages_list[0].metadata, said.message_object_trees[0]
            announced = parts_of(tree) or {}
            self._before = page.answer(metadata.reply_to_message_id, metadata.message_id, announced)
            self.book.keep(self.caller.key)
        elif isinstance(said, PushObjectRequest):
            question = page.announcing(said.run_id, said.object_id)
            if question is not None:
                page.store(question, said.object_id, len(said.object_content))
            said.ClearField("object_content")  # the object's bytes are forwarded unchanged

    def undo(self) -> None:
        """Removes a reply that the SuperLink did not accept."""
        said, page = self.said, self.caller.page
        if self._before is not None and isinstance(said, PushMessagesRequest):
            metadata = said.messages_list[0].metadata
            if metadata.reply_to_message_id in page.questions:
                page.questions[metadata.reply_to_message_id] = self._before
                self.book.keep(self.caller.key)

    def after(self, succeeded: bool, content: bytes | None) -> bool:
        """Stores the facts in the SuperLink's answer.

        Args:
            succeeded: Whether the SuperLink accepted the call.
            content: Its answer, if the gate reads it.

        Returns:
            Whether the answer may be forwarded.
        """
        if not succeeded:
            self.undo()
            return content is not None
        if isinstance(self.said, (ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest)):
            if content is None:
                return False
            try:
                self._read(content)
            except DecodeError:
                return False
        node = node_of(self.said)
        if node and not self.caller.page.node:  # the SuperLink has checked that it is the key's
            self.caller.page.node = node
            self.book.keep(self.caller.key)
        return True

    def _read(self, content: bytes) -> None:
        page = self.caller.page
        if isinstance(self.said, ActivateNodeRequest):
            node = ActivateNodeResponse.FromString(content).node_id
            if node != page.node:
                page.node, page.questions, page.stored = node, {}, {}
                self.book.keep(self.caller.key)
        elif isinstance(self.said, PullMessagesRequest):
            pulled = PullMessagesResponse.FromString(content)
            for message, tree in zip(
                pulled.messages_list, pulled.message_object_trees, strict=False
            ):
                metadata = message.metadata
                question = PendingQuestion(
                    run=metadata.run_id,
                    kind=metadata.message_type,
                    ends=metadata.created_at + metadata.ttl,
                    objects=frozenset(parts_of(tree, MOST_IN_QUESTION) or ()),
                )
                page.ask(metadata.message_id, question, self.caller.now)
            if pulled.messages_list:
                self.book.keep(self.caller.key)
