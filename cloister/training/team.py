"""Runs several processes at one site; each computes the clipped sum of its share of a batch.

    the site's process   draws the batch, divides its units, adds the sums, adds noise once, steps
    a worker             computes the clipped sum of units at an adapter (`training.worker`)

A worker has no ledger, no key and no records but the units that it gets. Sums are of integers on a
grid (`privacy.clipping`), so any division of the units gives the same bits. A unit goes whole to
one process, which depends on the unit and on how many equal units came before it (`parted`). So one
more unit adds one contribution and changes no other, even if two processes computed different bits.

Messages are Python's pickles on anonymous pipes, which only this process and its child have.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import Network, trained_parameters
from cloister.models.state import read_tensors
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.plan import Plan
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Task
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples

# Seconds that a process may take to end after its pipe is closed.
_GONE = 10.0


@dataclass(frozen=True)
class Opening:
    """The values from which a worker opens its own workspace; see `open_workspace`."""

    model: ModelConfig
    lora: LoraConfig
    task: TaskConfig
    labels: tuple[str, ...]
    seed: int
    frozen_cache_gib: float
    attention: str | None
    gradient_checkpointing: bool
    adversarial_radius: float | None = None
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class AskDepends:
    """Asks a worker for everything that the machine's proof depends on there."""

    plan: Plan
    config: TrainingConfig
    max_adapter_value: float


@dataclass(frozen=True)
class AskSum:
    """Asks for the clipped sum of units at an adapter.

    Attributes:
        tensors: All tensors that may differ from the study's start.
        trained: Names of the trained tensors.
        units: This worker's share of a batch.
        bound: As in `clipped_gradient_sum`.
        shapes: As in `clipped_gradient_sum`.
        grid: As in `clipped_gradient_sum`.
        apart: Whether the cache of frozen layers' states is neither used nor filled.
    """

    tensors: dict[str, NDArray[Any]]
    trained: frozenset[str]
    units: Sequence[UnitExamples]
    bound: float
    shapes: BatchShapes
    grid: float | None
    apart: bool


@dataclass(frozen=True)
class Failed:
    """The answer of a worker that failed, with the reason in words."""

    said: str


class Worker:
    """A worker process, seen from the site's process.

    Args:
        number: From 2; the site's own process is the first.
        of: Number of processes.
    """

    def __init__(self, number: int, of: int) -> None:
        self._who = f"process {number} of {of} (machine.processes)"
        asked, self._ask = _pipe()
        self._answers, given = _pipe()
        path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        command = [sys.executable, "-P", "-m", "cloister.training.worker"]
        self.process = subprocess.Popen(
            [*command, str(asked.fileno()), str(given.fileno())],
            pass_fds=(asked.fileno(), given.fileno()),
            stdin=subprocess.PIPE,  # never written: it closes when this process ends
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the site's process only
        )
        asked.close()
        given.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def ask(self, question: Opening | AskDepends | AskSum) -> None:
        """Sends a question; each is answered once, in order.

        Raises:
            RefusedError: The process ended.
        """
        try:
            self._ask.send(question)
        except OSError as error:
            raise self._ended() from error

    def answer(self) -> Any:
        """Waits for the answer to the oldest unanswered question.

        Raises:
            RefusedError: The process ended, or failed at the question.
        """
        try:
            found = self._answers.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(found, Failed):
            raise RefusedError(f"{self._who} failed: {found.said}")
        return found

    def end(self) -> None:
        """Kills the worker's process without waiting for an answer."""
        self.process.kill()
        self.process.wait()
        for held in (self._ask, self._answers, self.process.stdin):
            if held is not None:
                with suppress(OSError):
                    held.close()

    def _ended(self) -> RefusedError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_GONE)
        code = self.process.returncode
        how = f"with code {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
            how += ", as when memory runs out" if code == -signal.SIGKILL else ""
        return RefusedError(
            f"{self._who} ended {how}; the others do not take its share. All are started again for "
            "the next round: look at its messages, and where it has too little memory lower "
            "machine.physical_batch_tokens or machine.processes"
        )


def _pipe() -> tuple[Connection, Connection]:
    """The reading and the writing end of a pipe."""
    read, write = os.pipe()
    return Connection(read, writable=False), Connection(write, readable=False)


@dataclass
class Team:
    """The site's process and its workers; they are started when they are first needed.

    Attributes:
        opening: The values from which a worker opens its workspace.
        processes: How many there are, the site's own included.
        names: Names of the tensors in a question.
        agreed: The studies for which the workers were compared (`training.joined_processes`) since
            they started.
    """

    opening: Opening
    processes: int
    names: frozenset[str]
    agreed: list[object] = field(default_factory=list)
    _workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        weakref.finalize(self, _end, self._workers)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The started workers; empty before the first need and after a failure."""
        return tuple(self._workers)

    @property
    def is_whole(self) -> bool:
        """Whether every worker runs."""
        return len(self._workers) == self.processes - 1 and all(w.is_alive for w in self._workers)

    def start(self, device: torch.device) -> None:
        """Starts all workers, and restarts running ones; worker n uses GPU n.

        Args:
            device: The device of the site's own process.

        Raises:
            RefusedError: A worker cannot open the study's base.
        """
        self.close()
        for number in range(1, self.processes):
            self._workers.append(Worker(number + 1, self.processes))
        for number, worker in enumerate(self._workers, 1):
            own = f"cuda:{number}" if device.type == "cuda" else device.type
            worker.ask(_placed(self.opening, own))
        for worker in self._workers:
            worker.answer()

    def close(self) -> None:
        """Ends all workers; `start` starts new ones."""
        _end(self._workers)
        self.agreed.clear()

    def asked(self, question: AskDepends) -> list[Any]:
        """Asks each worker and returns the answers."""
        for worker in self._workers:
            worker.ask(question)
        return [worker.answer() for worker in self._workers]

    def clipped_sum(
        self,
        network: Network,
        task: Task,
        units: Sequence[UnitExamples],
        bound: float,
        shapes: BatchShapes,
        grid: float | None = None,
    ) -> ClippedSum:
        """`clipped_gradient_sum` over all processes: the same integers, bit for bit.

        Raises:
            RefusedError: A worker ended or failed; or as `clipped_gradient_sum` raises it.

        Guarantees:
            Returns the sum over all units or raises: no unit is lost with a process. After any
            error every worker is ended.
        """
        shares = parted(units, self.processes)
        total, *others = self.sums(network, task, shares, bound, shapes, grid)
        for other in others:
            total += other
        return total

    def sums(
        self,
        network: Network,
        task: Task,
        shares: Sequence[Sequence[UnitExamples]],
        bound: float,
        shapes: BatchShapes,
        grid: float | None = None,
    ) -> list[ClippedSum]:
        """Each process's sum of its share, the site's own first; see `clipped_sum`."""
        if len(self._workers) != self.processes - 1:
            raise RefusedError("machine.processes: the workers were not started for this round")
        named = list(trained_parameters(network))
        own, *rest = shares
        try:
            tensors = dict(read_tensors(network, self.names))
            trained = frozenset(name for name, _ in named)
            for worker, share in zip(self._workers, rest, strict=True):
                worker.ask(AskSum(tensors, trained, share, bound, shapes, grid, network.is_apart))
            found = [clipped_gradient_sum(network, task, own, bound, shapes, grid)]
            for worker in self._workers:
                arrays = worker.answer()
                placed = [
                    torch.from_numpy(array).to(parameter.device)
                    for array, (_, parameter) in zip(arrays, named, strict=True)
                ]
                found.append(ClippedSum(tuple(placed), bound, grid))
        except BaseException:
            self.close()  # a late answer must not be taken for the next one
            raise
        return found


def parted(units: Sequence[UnitExamples], processes: int) -> list[list[UnitExamples]]:
    """Divides a batch among processes: every unit once, undivided.

    Args:
        units: A batch.
        processes: Number of processes.

    Guarantees:
        A function of the batch as a multiset: with one more unit, one share has that unit more.
        Equal units are spread like different ones. If they went to one process, a step at a site
        with many of them would take longer than measured, and the time of an answer would reveal
        them.
    """
    shares: list[list[UnitExamples]] = [[] for _ in range(processes)]
    before: Counter[str] = Counter()
    for unit in units:
        spelled = repr(unit)
        shares[process_of(unit, processes, before[spelled])].append(unit)
        before[spelled] += 1
    return shares


def process_of(unit: UnitExamples, processes: int, copy: int = 0) -> int:
    """The number of the process, from 0, that computes a unit: by a hash of its records and `copy`.

    Args:
        unit: Its records.
        processes: Number of processes.
        copy: Number of equal units before it in the batch.
    """
    found = hashlib.blake2b(f"{copy} {unit!r}".encode(), digest_size=8).digest()
    return int.from_bytes(found) % processes


def _placed(opening: Opening, device: str) -> Opening:
    return Opening(**{**vars(opening), "device": device, "threads": torch.get_num_threads()})


def _end(workers: list[Worker]) -> None:
    while workers:
        workers.pop().end()
