"""Collects replies from the SuperLink without waiting for missing objects.

Flower's Grid waits for each reply's objects in turn, and an unreadable object ends the whole run.
Here an incomplete reply is tried again later, and `pulling` builds the message from its objects.
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
    """A reply that may be incomplete.

    Attributes:
        told: The SuperLink's record of the reply.
        tree: The ids of the reply's objects.
        since: Time at which its last object came, by the clock of `Arrivals`.
        contents: Objects that have come, by id.
        gone: Whether the SuperLink has lost one of them.
    """

    told: ProtoMessage
    tree: ObjectTree
    since: float
    contents: dict[str, bytes] = field(default_factory=dict)
    gone: bool = False

    def pull(self, pull: Pull, now: float) -> bool:
        """Fetches available objects; returns whether the reply is complete."""
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

    def missing(self) -> list[str]:
        """Ids of its objects that have not come."""
        tree = iterate_object_tree(self.tree)
        return [node.object_id for node in tree if node.object_id not in self.contents]

    def message(self) -> Message:
        """The reply built from the objects; without content if they are not one."""
        return read_pulled(self.told.metadata, self.contents)

    def lost(self) -> Message:
        """The error in place of a reply whose objects never came."""
        return not_there(self.told.metadata)


@dataclass
class Arrivals:
    """All incomplete replies.

    Attributes:
        patience: Seconds without any object of a reply after which it is lost.
        clock: Returns seconds of a monotonic clock.
    """

    patience: float
    clock: Callable[[], float]
    _arriving: dict[str, ArrivingReply] = field(default_factory=dict)

    def add(self, told: Iterable[ProtoMessage], trees: Iterable[ObjectTree]) -> None:
        """Notes replies that the SuperLink has."""
        for message, tree in zip(told, trees, strict=True):
            self._arriving[message.metadata.message_id] = ArrivingReply(message, tree, self.clock())

    def answered(self) -> set[str]:
        """Ids of the questions whose replies are incomplete: the SuperLink no longer knows them."""
        return {one.told.metadata.reply_to_message_id for one in self._arriving.values()}

    def missing(self) -> list[str]:
        """Ids of all objects that have not come, reply after reply."""
        wanted = (name for arriving in self._arriving.values() for name in arriving.missing())
        return list(dict.fromkeys(wanted))

    def take(self, pull: Pull) -> list[tuple[str, Message]]:
        """Returns complete and lost replies with their ids, each once."""
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
