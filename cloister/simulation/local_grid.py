"""Implements Flower's Grid in this process: a direct call of the ClientApp answers each message.

It needs no network and no workers, and one base in memory serves all sites, so a round takes no
more time than its training. `worker_grid` spreads the same sites over processes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

# Node 1 is the coordinator, as in Flower; sites follow.
SERVER_NODE = 1


class SimulatedGrid(Grid):
    """A Grid of `num_sites` nodes on this machine, with one run.

    Attributes:
        num_sites: Nodes; node `SERVER_NODE + 1 + i` is partition i.
    """

    num_sites: int

    def set_run(self, run: Run) -> None:
        """Does nothing: this grid has one run only."""

    @property
    def run(self) -> Run:
        """The only run of this grid."""
        return Run.create_empty(SERVER_NODE)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Makes a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Returns the node ids of all sites."""
        return range(SERVER_NODE + 1, SERVER_NODE + 1 + self.num_sites)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Has every message answered; a deadline is not needed, as all is on this machine."""
        return self.pull_messages(self.push_messages(messages))


def identify_process() -> None:
    """Tells Flower's Message the identity of this process's task, which it reads for each one."""
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = SERVER_NODE


def numbered(message: Message) -> str:
    """Gives a message an id of its own, which its answer names, and returns it."""
    name = str(uuid.uuid4())
    message.metadata.__dict__["_message_id"] = name
    return name


@dataclass
class LocalGrid(SimulatedGrid):
    """A Grid of `num_sites` nodes that all run one ClientApp.

    Attributes:
        client_app: Answers every message.
        num_sites: Nodes.
    """

    client_app: ClientApp
    num_sites: int
    _contexts: dict[int, Context] = field(default_factory=dict)
    _replies: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identify_process()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answers each message at once."""
        pushed = []
        for message in messages:
            name = numbered(message)
            self._replies[name] = self.answer(message)
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns and removes the replies to these messages that exist."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def answer(self, message: Message) -> Message:
        """Returns the answer of the node to which a message goes."""
        return self.client_app(message, self._context(message.metadata.dst_node_id))

    def _context(self, node: int) -> Context:
        if node not in self._contexts:
            self._contexts[node] = Context(
                run_id=SERVER_NODE,
                node_id=node,
                node_config={
                    "partition-id": node - SERVER_NODE - 1,
                    "num-partitions": self.num_sites,
                },
                state=RecordDict(),
                run_config={},
            )
        return self._contexts[node]
