"""Replies on their way from the SuperLink: put together without waiting, and whatever they are.

Flower's Grid waits for each reply's objects in turn, and lets an object that cannot be read end the
whole run. Here a reply whose objects are not all there is looked at again later; what the objects
are, `pulling` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from cloister.deployment.flower.pulling import not_there, read_pulled

Pull = Callable[[str], PullObjectResponse]


@dataclass
class ArrivingReply:
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
        return read_pulled(self.told.metadata, self.contents)

    def lost(self) -> Message:
        """The error in place of a reply whose objects never came."""
        return not_there(self.told.metadata)


@dataclass
class Arrivals:
    """All replies on their way.

    Attributes:
        patience: Seconds without any object of a reply after which it is lost.
        clock: Seconds that only grow.
    """

    patience: float
    clock: Callable[[], float]
    _arriving: dict[str, ArrivingReply] = field(default_factory=dict)

    def add(self, told: Iterable[ProtoMessage], trees: Iterable[ObjectTree]) -> None:
        """Notes replies that the SuperLink has."""
        for message, tree in zip(told, trees, strict=True):
            self._arriving[message.metadata.message_id] = ArrivingReply(message, tree, self.clock())

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
