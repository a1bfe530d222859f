"""Asks every connected site for one round, and waits for the answers up to a deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cloister.protocol.exchange import RECORD, RoundRequest, Step
from cloister.server.boundary import Unreadable, reading
from cloister.server.voice import Voice, addressed, hear

log = logging.getLogger(__name__)

# Seconds between checks for sites and for their replies: far below the 3 s after which a SuperNode
# checks for its next question. Each check costs the SuperLink a search of its database.
POLL = 0.25
# Seconds between checks whether a node has connected again since it was asked; and how many times
# as long as a check takes, since it lists all nodes, and the SuperLink has other callers. A check
# during the SuperLink's restart takes up to a minute; nodes connect again just after it. So the
# pause has a limit: the minute after which Flower itself notices a node that left.
RECONNECTED_POLL, RECONNECTED_TIMES, RECONNECTED_MOST = 1.0, 20.0, 60.0

# A connected site is silent when it has taken so many times as long as its last answer to such a
# question: a round's length varies less than that, and who only computes is not asked for the same
# bytes twice.
SLOWER = 2.0
# But it is asked again after this part of the time for all answers, so that a lost question is
# never lost for the round, even where the last answer came late because a connection broke.
SILENT_SHARE = 0.5

Nodes = Mapping[int, str]  # site by Flower's node id; "" where only the reply names the site


@dataclass(frozen=True)
class Timeouts:
    """How long a round waits, in seconds.

    Attributes:
        round: For all answers, from the round's start.
        absent: For sites that are not connected, once enough others are; None: as long as `round`.
        again: Seconds before a site whose answer was lost is asked again; None: never.
        silent: Least seconds before a silent connected site is asked again, doubled each time; a
            site that was slower before gets `SLOWER` times as long as its last answer to such a
            question (`Step`) took, at most `SILENT_SHARE` of `round`.
            Flower counts a question as delivered once a node has fetched it, even if the connection
            broke on the way. A site that is asked twice sends the same bytes. None: never.
        waiting: Seconds before a site that cannot answer yet is asked again.
    """

    round: float
    absent: float | None = None
    again: float | None = None
    silent: float | None = None
    waiting: float = (
        10.0  # a person decides, so ten seconds are short enough, and they cause no load
    )


@dataclass
class Dispatcher:
    """Asks sites, round after round.

    Attributes:
        grid: Flower's.
        nodes: Returns the connected nodes.
        patience: How long to wait.
        voice: Signs the questions and keeps the heads of the answers.
        on_event: Called with what happens to a site in a round: `asked`, `answered`, `lost`,
            `late`, `waiting`.
        since: Returns when each node connected, from Flower. A node that connected after it was
            asked has lost the question; Flower itself notices that only after a minute.
        clock: Returns seconds of a monotonic clock.
        wait: Waits some seconds.
        is_waiting: Whether an answer says that the site cannot answer yet, and is asked again.
    """

    grid: Grid
    nodes: Callable[[Grid], Nodes]
    patience: Timeouts
    voice: Voice
    on_event: Callable[[str, int, str], None] = lambda what, number, site: None
    since: Callable[[Grid], Mapping[int, str]] = lambda grid: {}
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    is_waiting: Callable[[Message], bool] = lambda message: False
    _late: dict[str, tuple[int, str]] = field(default_factory=dict)
    _answered: set[str] = field(default_factory=set)
    _took: dict[tuple[str, Step], float] = field(default_factory=dict)

    def connected(self, sites: int, enough: int, started: float) -> Nodes:
        """Waits until all sites are connected, or enough of them when `patience.absent` is over.

        Args:
            sites: Number of sites in the study.
            enough: Number that is enough.
            started: When the round began, by the clock.
        """
        absent = self.patience.round if self.patience.absent is None else self.patience.absent
        while True:
            nodes = self.nodes(self.grid)
            elapsed = self.clock() - started
            if (
                len(nodes) >= sites
                or (len(nodes) >= enough and elapsed >= absent)
                or elapsed >= self.patience.round
            ):
                return nodes
            self.wait(min(POLL, self.patience.round - elapsed))

    def ask(
        self, request: RoundRequest, nodes: Nodes, enough: int, started: float
    ) -> Iterator[tuple[str, Message]]:
        """Sends a request to nodes and yields their answers as they come.

        Args:
            request: The round's.
            nodes: The nodes to ask.
            enough: How many answers will do where other nodes have gone.
            started: When the round began, by the clock.

        Yields:
            Each answer with the site whose node sent it, one per node; a later answer is dropped.
        """
        yield from self.ask_each(
            request.round, dict.fromkeys(nodes, request), nodes, enough, started
        )

    def ask_each(
        self,
        number: int,
        requests: Mapping[int, RoundRequest],
        nodes: Nodes,
        enough: int,
        started: float,
    ) -> Iterator[tuple[str, Message]]:
        """Like `ask`, with a request of its own for each node."""
        asking = _Asking(self, number, requests, nodes, self.since(self.grid))
        deadline = started + self.patience.round
        answers = 0
        asking.push(list(nodes))
        while asking.is_open:
            looked = self.clock()
            came = self._pull(asking.pending)
            taken = self.clock() - looked
            for message_id, message in came:
                answer = asking.take(message_id, message)
                if answer is not None:
                    answers += 1
                    yield answer
            asking.look_for_reconnected()
            now = self.clock()
            if now >= deadline or not asking.is_open:
                break
            asking.push_due()
            if answers >= enough and asking.only_absent_are_left():
                break
            # With many sites a look takes long: the SuperLink is left alone for as long again.
            self.wait(min(max(POLL, taken), deadline - now))
        self._late |= {
            message_id: (number, nodes[node]) for message_id, node in asking.pending.items()
        }
        yield from asking.failed()

    def _pull(self, pending: Mapping[str, int]) -> list[tuple[str, Message]]:
        """Fetches the answers to this round; answers to earlier rounds are reported and dropped."""
        asked = [*pending, *self._late, *self._answered]
        came = []
        for message in self.grid.pull_messages(asked) if asked else ():
            message_id = reading("some site", partial(_answered, message))
            if isinstance(message_id, Unreadable):
                continue  # its sender is unknown, so its site counts as silent
            # Keep the heads of late and repeated answers, too: the site released them.
            hear(self.voice, message)
            if message_id in self._answered:
                self._answered.discard(message_id)  # the same bytes once more
            elif message_id in self._late:
                self.on_event("late", *self._late.pop(message_id))
            else:
                came.append((message_id, message))
        return came


def _answered(message: Message) -> str:
    """The id of the question that a message answers."""
    return str(message.metadata.reply_to_message_id)


@dataclass
class _Asking:
    """One round's open questions, and when each site is asked again."""

    asker: Dispatcher
    number: int
    requests: Mapping[int, RoundRequest]
    nodes: Nodes
    connected: Mapping[int, str]
    pending: dict[str, int] = field(default_factory=dict)
    again: dict[int, float] = field(default_factory=dict)
    silent: dict[int, tuple[float, float]] = field(default_factory=dict)
    pushed: dict[str, float] = field(default_factory=dict)
    failures: dict[int, Message] = field(default_factory=dict)
    looked: float = 0.0
    rest: float = 0.0

    def __post_init__(self) -> None:
        self.looked = self.asker.clock()

    @property
    def is_open(self) -> bool:
        return bool(self.pending or self.again)

    def push(self, to: list[int]) -> None:
        """Sends the request; if Flower did not accept it for a node, that node is tried again
        later."""
        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord(self._to(node).fields())}),
                dst_node_id=node,
                message_type=MessageType.TRAIN,
                group_id=str(self.number),
            )
            for node in to
        ]
        now, patience = self.asker.clock(), self.asker.patience
        for node, message_id in zip(to, self.asker.grid.push_messages(messages), strict=True):
            if message_id:
                self.pending[message_id], self.pushed[message_id] = node, now
                self._tell("asked", node)
            elif patience.again is not None:
                self.again[node] = now + patience.again
            if patience.silent is not None:
                usual = SLOWER * self.asker._took.get(self._kind(node), 0.0)
                first = max(patience.silent, min(usual, SILENT_SHARE * patience.round))
                waited = self.silent[node][1] * 2 if node in self.silent else first
                self.silent[node] = (now + waited, waited)

    def _kind(self, node: int) -> tuple[str, Step]:
        """A node's site, and what it is asked for: an evaluation takes shorter than a training."""
        return self.nodes[node], self.requests[node].step

    def _to(self, node: int) -> RoundRequest:
        """A node's question, addressed and signed now, because a newer head may have come."""
        return addressed(self.asker.voice, self.requests[node], self.nodes[node])

    def take(self, message_id: str, message: Message) -> tuple[str, Message] | None:
        """Returns the answer in a message; None for one that does not count."""
        node = self.pending.pop(message_id, None)
        if node is None:
            log.warning("round %d: an answer that nobody asked for", self.number)
            return None
        again = self.asker.patience.again
        if message.has_content() and self.asker.is_waiting(message):
            self.asker._answered |= self._forget(node)
            self.silent.pop(node, None)
            self.again[node] = self.asker.clock() + self.asker.patience.waiting
            self._tell("waiting", node)
            return None
        if message.has_content() or again is None:
            self.asker._took[self._kind(node)] = self.asker.clock() - self.pushed[message_id]
            self.asker._answered |= self._forget(node)
            self.again.pop(node, None)
            self._tell("answered", node)
            return self.nodes[node], message
        log.warning(
            "round %d: %s: Flower's error %d", self.number, self.nodes[node], message.error.code
        )
        self._tell("lost", node)
        self.failures[node] = message
        if node not in self.pending.values():
            self.again[node] = self.asker.clock() + again
        return None

    def look_for_reconnected(self) -> None:
        """Asks nodes again that connected after they were asked."""
        now = self.asker.clock()
        if not self.pending or now - self.looked <= max(RECONNECTED_POLL, self.rest):
            return
        there_since = self.asker.since(self.asker.grid)
        self.looked = self.asker.clock()
        self.rest = min(RECONNECTED_TIMES * (self.looked - now), RECONNECTED_MOST)
        for node in sorted(set(self.pending.values())):
            if there_since.get(node, self.connected.get(node)) != self.connected.get(node):
                lost = dict.fromkeys(self._forget(node), (self.number, self.nodes[node]))
                self.asker._late |= lost
                self.again[node] = now
                self._tell("lost", node)
        self.connected = {**self.connected, **there_since}

    def push_due(self) -> None:
        """Asks connected nodes again whose waiting time is over."""
        now = self.asker.clock()
        silent = {
            node
            for node in self.pending.values()
            if node in self.silent and self.silent[node][0] <= now
        }
        due = {node for node, at in self.again.items() if at <= now} | silent
        there = self.asker.nodes(self.asker.grid) if due else {}
        due &= there.keys()
        for node in due:
            self.again.pop(node, None)
        if due:
            self.push(sorted(due))

    def only_absent_are_left(self) -> bool:
        """Whether every node that could still answer has been absent for too long."""
        absent, now = self.asker.patience.absent, self.asker.clock()
        return (
            not self.pending
            and absent is not None
            and all(now > at + absent for at in self.again.values())
        )

    def failed(self) -> list[tuple[str, Message]]:
        """Returns the errors of nodes that sent nothing else."""
        return [
            (self.nodes[node], self.failures[node]) for node in self.again if node in self.failures
        ]

    def _forget(self, node: int) -> set[str]:
        """Ends a node's open questions and returns their ids."""
        ids = {message_id for message_id, one in self.pending.items() if one == node}
        for message_id in ids:
            del self.pending[message_id]
        return ids

    def _tell(self, what: str, node: int) -> None:
        self.asker.on_event(what, self.number, self.nodes[node])
