"""Replies on their way from the SuperLink: put together without waiting, and whatever they are.

Flower's Grid waits for each reply's objects in turn, takes the message's own object for the truth
about who sent it, and lets an object that cannot be read end the whole run. Here a reply whose
objects are not all there is looked at again later; who sent it and what it answers is what the
SuperLink has noted; and one that cannot be read becomes one without content, which does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

log = logging.getLogger(__name__)

Pull = Callable[[str], PullObjectResponse]


@dataclass
class Arriving:
    """A reply of which not all is here.

    Attributes:
        told: What the SuperLink has noted of it.
        tree: Its objects.
        since: When something of it last came, by the clock.
        contents: Objects that are here, by id.
        gone: Whether the SuperLink no longer has one of them.
    """

    told: ProtoMessage
    tree: ObjectTree
    since: float
    contents: dict[str, bytes] = field(default_factory=dict)
    gone: bool = False

    def pull(self, pull: Pull, now: float) -> bool:
        """Fetches what is there by now; whether that is all."""
        for node in iterate_object_tree(self.tree):
            if node.object_id in self.contents:
                continue
            response = pull(node.object_id)
            self.gone = not response.object_found
            if self.gone or not response.object_available:
                return False
            self.contents[node.object_id] = bytes(response.object_content)
            self.since = now
        return True

    def message(self) -> Message:
        """The reply that the objects are; one without content where they are none."""
        metadata = metadata_from_proto(self.told.metadata)
        try:
            made = inflate_object_from_contents(self.told.metadata.message_id, self.contents)
            if not isinstance(made, Message):
                raise TypeError(f"{type(made).__name__} in place of a message")
            content = None if made.has_error() else made.content
            error = made.error if made.has_error() else None
        except Exception as failure:  # whatever a site sent: its reply does not count
            log.warning("node %d: its reply cannot be read (%s)",
                        metadata.src_node_id, type(failure).__name__)  # fmt: skip
            content, error = RecordDict(), None
        return make_message(metadata, content, error)

    def lost(self) -> Message:
        """The error in place of a reply whose objects never came."""
        metadata = metadata_from_proto(self.told.metadata)
        error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "its objects did not come")
        return make_message(metadata, None, error)


@dataclass
class Arrivals:
    """All replies on their way.

    Attributes:
        patience: Seconds without any object of a reply after which it is lost.
        clock: Seconds that only grow.
    """

    patience: float
    clock: Callable[[], float]
    _arriving: dict[str, Arriving] = field(default_factory=dict)

    def add(self, told: Iterable[ProtoMessage], trees: Iterable[ObjectTree]) -> None:
        """Notes replies that the SuperLink has."""
        for message, tree in zip(told, trees, strict=True):
            self._arriving[message.metadata.message_id] = Arriving(message, tree, self.clock())

    def take(self, pull: Pull) -> list[tuple[str, Message]]:
        """Those that are here now, or lost, with their ids; each once."""
        taken = []
        for message_id, arriving in list(self._arriving.items()):
            if arriving.pull(pull, self.clock()):
                taken.append((message_id, arriving.message()))
            elif arriving.gone or self.clock() - arriving.since > self.patience:
                taken.append((message_id, arriving.lost()))
            else:
                continue
            del self._arriving[message_id]
        return taken
