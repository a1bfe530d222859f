"""Asking every connected site for one round, and waiting for the answers no longer than agreed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cloister.adapter.exchange import RECORD, RoundRequest

log = logging.getLogger(__name__)

# Seconds between looks for sites and for their replies: far below a round's seconds.
POLL = 0.1
# Seconds between looks whether a node that was asked has connected anew since.
RECONNECTED_POLL = 1.0

Nodes = Mapping[int, str]  # site by Flower's id of its node; "" where only its reply tells


@dataclass(frozen=True)
class Patience:
    """How long a round waits, in seconds.

    Attributes:
        round: For everything, from the round's start.
        absent: For sites that are not connected, once the others are enough; None: as for the
            round.
        again: Before a site whose answer was lost on the way is asked again; None: never.
    """

    round: float
    absent: float | None = None
    again: float | None = None


@dataclass
class Asker:
    """Asks sites, round after round.

    Attributes:
        grid: Flower's.
        nodes: Which connected nodes there are.
        patience: How long to wait.
        on_event: Told of what happens to a site in a round: `asked`, `answered`, `lost`, `late`.
        since: When each connected node connected, as Flower tells; one that did so after it was
            asked has lost the question. Flower itself notices that after a minute.
        clock: Seconds that only grow.
        wait: Waits some seconds.
    """

    grid: Grid
    nodes: Callable[[Grid], Nodes]
    patience: Patience
    on_event: Callable[[str, int, str], None] = lambda what, number, site: None
    since: Callable[[Grid], Mapping[int, str]] = lambda grid: {}
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    _late: dict[str, tuple[int, str]] = field(default_factory=dict)

    def connected(self, sites: int, enough: int, started: float) -> Nodes:
        """The nodes that are there once all sites are, or as many as can be waited for.

        Args:
            sites: How many there could be.
            enough: How many will do.
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
    ) -> list[tuple[str, Message]]:
        """Sends a request to nodes and collects their answers.

        Args:
            request: The round's.
            nodes: Whom.
            enough: How many answers will do where other nodes have gone.
            started: When the round began, by the clock.

        Returns:
            Answers with the site whose node sent each; what comes after the deadline is dropped
            when it comes.
        """
        deadline = started + self.patience.round
        looked, connected = self.clock(), self.since(self.grid)
        pending: dict[str, int] = {}
        again: dict[int, float] = {}
        answers: list[tuple[str, Message]] = []
        failures: dict[int, Message] = {}
        again |= self._push(request, nodes, list(nodes), pending)
        while pending or again:
            for message in self._pull(pending):
                node = pending.pop(message.metadata.reply_to_message_id, None)
                if node is None:
                    log.warning("round %d: an answer that nobody asked for", request.round)
                    continue
                if message.has_content() or self.patience.again is None:
                    answers.append((nodes[node], message))
                    self.on_event("answered", request.round, nodes[node])
                    continue
                log.warning("round %d: %s: Flower's error %d", request.round, nodes[node],
                            message.error.code)  # fmt: skip
                self.on_event("lost", request.round, nodes[node])
                failures[node] = message
                again[node] = self.clock() + self.patience.again
            now = self.clock()
            if pending and now - looked > RECONNECTED_POLL:
                looked, there_since = now, self.since(self.grid)
                for message_id, node in list(pending.items()):
                    if there_since.get(node, connected.get(node)) != connected.get(node):
                        self._late[message_id] = (request.round, nodes[node])
                        del pending[message_id]
                        again[node] = now
                        self.on_event("lost", request.round, nodes[node])
                connected = {**connected, **there_since}
            if now >= deadline or not (pending or again):
                break
            there = self.nodes(self.grid) if again else {}
            due = [node for node, at in again.items() if at <= now and node in there]
            for node in due:
                del again[node]
            if due:
                again |= self._push(request, nodes, due, pending)
            gone = self.patience.absent
            if (
                not pending
                and len(answers) >= enough
                and gone is not None
                and all(now > at + gone for at in again.values())
            ):
                break
            self.wait(min(POLL, deadline - now))
        for message_id, node in pending.items():
            self._late[message_id] = (request.round, nodes[node])
        answers += [(nodes[node], failures[node]) for node in again if node in failures]
        return answers

    def _push(
        self, request: RoundRequest, nodes: Nodes, to: list[int], pending: dict[str, int]
    ) -> dict[int, float]:
        """Sends the request; nodes for which Flower did not take it, with when to try again."""
        unsent = {}
        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord(request.fields())}),
                dst_node_id=node,
                message_type=MessageType.TRAIN,
                group_id=str(request.round),
            )
            for node in to
        ]
        for node, message_id in zip(to, self.grid.push_messages(messages), strict=True):
            if message_id:
                pending[message_id] = node
                self.on_event("asked", request.round, nodes[node])
            elif self.patience.again is not None:
                unsent[node] = self.clock() + self.patience.again
        return unsent

    def _pull(self, pending: Mapping[str, int]) -> list[Message]:
        """What has come for this round; answers to earlier ones are told and dropped."""
        asked = [*pending, *self._late]
        came = []
        for message in self.grid.pull_messages(asked) if asked else ():
            late = self._late.pop(message.metadata.reply_to_message_id, None)
            if late is not None:
                self.on_event("late", *late)
            else:
                came.append(message)
        return came
