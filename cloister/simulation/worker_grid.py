"""Implements Flower's Grid over workers, each of which runs its own sites.

`DividedGrid` knows which worker is asked what; `WorkerGrid` talks to processes of this machine over
pipes, `ray_grid` to those of a Ray.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Protocol

from flwr.app import Message

from cloister.models.handed_states import StatesPiece
from cloister.simulation.local_grid import (
    SERVER_NODE,
    SimulatedGrid,
    identify_process,
    numbered,
)
from cloister.simulation.site_worker import (
    HandedOver,
    HandOver,
    RunEnding,
    Said,
    SiteAnswer,
    SiteError,
    Stepped,
    Told,
)
from cloister.simulation.study import SimulatedSites
from cloister.simulation.worker_plan import WorkerPlan
from cloister.simulation.worker_start import SiteWorker, start_workers


class Division(Protocol):
    """Which worker runs which site."""

    def worker_of(self, partition: int) -> int:
        """Returns the worker, from 0, that runs a site in every round."""


class Asked(Protocol):
    """A worker, as a grid asks it."""

    def ask(self, message: Told) -> None:
        """Sends a message to one of its sites, or the answer to what it asked."""


@dataclass
class DividedGrid(SimulatedGrid):
    """A Grid of `num_sites` nodes on workers.

    A site is on the same worker in every round, which so is the only writer of its ledger and keeps
    its frozen states. A worker has at most one question at a time: a second one could fill the pipe
    while its first answer fills the other, and both processes would wait.

    Attributes:
        num_sites: Nodes.
        plan: Which worker runs which site.
        workers: The workers.
        on_step: Called after each local step of any site.
        on_error: Called with each error that a site answered with one word.
    """

    num_sites: int
    plan: Division
    workers: Sequence[Asked]
    on_step: Callable[[], None] = lambda: None
    on_error: Callable[[Exception], None] = lambda error: None
    _waiting: list[deque[Message]] = field(default_factory=list)
    _asked: dict[int, str] = field(default_factory=dict)  # the message that a worker answers now
    _unanswered: set[str] = field(default_factory=set)
    _replies: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identify_process()
        self._waiting = [deque() for _ in self.workers]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Has the messages answered; returns their ids at once.

        Raises:
            CloisterError: A worker ended.
        """
        pushed = []
        for message in messages:
            pushed.append(numbered(message))
            self._unanswered.add(pushed[-1])
            partition = message.metadata.dst_node_id - SERVER_NODE - 1
            self._waiting[self.plan.worker_of(partition)].append(message)
        for number in range(len(self.workers)):
            self._ask_next(number)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Waits until all of these messages are answered, and returns the answers in their order.

        Raises:
            CloisterError: A worker ended; or any error with which a site ends the simulation.
        """
        asked = list(message_ids)
        wanted = set(asked)
        while not self._unanswered.isdisjoint(wanted):
            self._listen()
        return [self._replies.pop(name) for name in asked if name in self._replies]

    def _ask_next(self, number: int) -> None:
        if number not in self._asked and self._waiting[number]:
            message = self._waiting[number].popleft()
            self._asked[number] = message.metadata.message_id
            self.workers[number].ask(message)

    def _listen(self) -> None:
        """Waits until a worker says something, and takes it by `_hear`."""
        raise NotImplementedError

    def _hear(self, number: int, said: Said) -> None:
        """Takes what a worker says while it has a question."""
        if isinstance(said, SiteAnswer):
            answered = self._asked.pop(number)
            self._unanswered.discard(answered)
            self._replies[answered] = said.message
            self._ask_next(number)
        else:
            self._take(said)

    def _take(self, said: Said, take: Callable[[StatesPiece], None] = lambda piece: None) -> None:
        """Takes what a worker says beside answers."""
        if isinstance(said, Stepped):
            self.on_step()
        elif isinstance(said, SiteError):
            self.on_error(said.error)
        elif isinstance(said, RunEnding):
            raise said.error
        elif isinstance(said, StatesPiece):
            take(said)
        elif isinstance(said, logging.LogRecord):
            logging.getLogger(said.name).handle(said)


@dataclass
class WorkerGrid(DividedGrid):
    """A grid over processes of this machine."""

    plan: WorkerPlan
    workers: Sequence[SiteWorker]

    def hand_over(self, take: Callable[[StatesPiece], None]) -> None:
        """Gets what the workers cached of their sites' records, once no message is open.

        Args:
            take: Called with each piece.

        Raises:
            CloisterError: A worker ended.
        """
        for worker in self.workers if self.plan.is_forked else ():
            worker.ask(HandOver())
            while not isinstance(said := worker.said(), HandedOver):
                self._take(said, take)

    def _listen(self) -> None:
        """Waits until a worker says something, and takes what every worker has said by then."""
        busy = {self.workers[number].answers: number for number in self._asked}
        for connection in wait(list(busy)):
            number = busy[connection]  # type: ignore[index]
            self._hear(number, self.workers[number].said())


@contextmanager
def worker_grid(
    plan: WorkerPlan,
    sites: SimulatedSites,
    num_sites: int,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> Iterator[WorkerGrid]:
    """Starts workers for the sites of a study, and ends them.

    Args:
        plan: How many.
        sites: Finds a site by its context.
        num_sites: Number of sites.
        on_step: Called after each local step of any site.
        on_error: Called with each error that a site answered with one word.

    Raises:
        CloisterError: A process cannot be started.

    Guarantees:
        No worker is left, whatever ends the context. After an error or an interruption workers are
        killed in what they do, which a ledger survives as it survives a power cut: a round that was
        charged and not released stays spent.
    """
    workers = start_workers(plan, sites, num_sites)
    at_once = True
    try:
        yield WorkerGrid(num_sites, plan, workers, on_step, on_error)
        at_once = False
    finally:
        for worker in workers:
            worker.end(at_once=at_once)
