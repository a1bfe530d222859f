"""Starts the worker processes of a simulation, and ends them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import torch

from cloister.errors import CloisterError
from cloister.simulation.site_worker import (
    RunEnding,
    Said,
    Told,
    WorkerSetup,
    portable,
    run_as_fork,
    serve,
)
from cloister.simulation.study import SimulatedSites
from cloister.simulation.worker_plan import WorkerPlan


class WorkerChild(Protocol):
    """A child process, as `subprocess.Popen` has it."""

    def kill(self) -> None:
        """Kills it, unless it was waited for."""

    def wait(self) -> int:
        """Waits for its end, and returns its exit code, negative for a signal."""


class ForkedChild:
    """A fork of this process.

    Args:
        pid: Its number.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._code: int | None = None

    def kill(self) -> None:
        """Kills it; its number may be another process's once it was waited for."""
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Waits for its end, once, and returns its exit code, negative for a signal."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code


class _ThreadChild:
    """A thread of this process; it ends after the message that it answers."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def kill(self) -> None:
        """Does nothing: a thread cannot be killed; its process is, or it ends by itself."""

    def wait(self) -> int:
        """Waits for its end."""
        self._thread.join()
        return 0


@dataclass
class SiteWorker:
    """A worker process, seen from the coordinator's.

    Attributes:
        name: For messages: `worker 2 of 4 (--workers)`.
        questions: Where messages to its sites go.
        answers: Where it says something (`site_worker.Said`).
        child: The process.
        lifeline: A file descriptor; the worker ends when it is closed.
        advice: What helps if memory ran out, for messages.
    """

    name: str
    questions: Connection
    answers: Connection
    child: WorkerChild
    lifeline: int
    advice: str = "--resume --out RUN), with fewer --workers"

    def ask(self, message: Told) -> None:
        """Sends a message to one of its sites, asks for what it cached, or answers a question.

        Raises:
            CloisterError: The process ended.
        """
        try:
            self.questions.send(message)
        except OSError as error:
            raise self._ended() from error

    def said(self) -> Said:
        """Waits for what the worker says next.

        Raises:
            CloisterError: The process ended.
        """
        try:
            said: Said = self.answers.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        return said

    def end(self, *, at_once: bool) -> None:
        """Ends the process, and waits for it.

        Args:
            at_once: Whether it is killed in what it does, as by a power cut; else it has no
                question any more and ends by itself.
        """
        if at_once:
            self.child.kill()
        self.questions.close()
        self.child.wait()
        self.answers.close()
        os.close(self.lifeline)

    def _ended(self) -> CloisterError:
        code = self.child.wait()
        how = f"with code {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
            how += ", as when memory runs out" if code == -signal.SIGKILL else ""
        return CloisterError(
            f"{self.name} ended {how} before its sites had answered; closed rounds are saved, and "
            "what its sites charged stays charged: resume the run (cloister simulate "
            f"{self.advice} if memory ran out"
        )


def start_workers(plan: WorkerPlan, sites: SimulatedSites, num_sites: int) -> list[SiteWorker]:
    """Starts all workers of a plan.

    Args:
        plan: How many, and how.
        sites: Finds a site by its context; its study is prepared.
        num_sites: Number of sites.

    Raises:
        CloisterError: The system starts no more processes; none is left then.
    """
    started: list[SiteWorker] = []
    try:
        for number in range(plan.processes):
            name = f"worker {number + 1} of {plan.processes} (--workers)"
            if plan.is_forked:
                setup = WorkerSetup(sites, num_sites, plan.threads, plan.processes)
                started.append(forked(name, setup))
            else:
                own = _placed(sites, plan, number)
                setup = WorkerSetup(own, num_sites, plan.threads, plan.processes)
                started.append(_anew(name, setup))
    except OSError as error:
        for worker in started:
            worker.end(at_once=True)
        raise CloisterError(
            f"worker {len(started) + 1} of {plan.processes} cannot be started ({error.strerror}); "
            "nothing was charged: give fewer --workers"
        ) from error
    return started


def _placed(sites: SimulatedSites, plan: WorkerPlan, number: int) -> SimulatedSites:
    """Returns the sites for a worker that prepares them itself, on its device, with its share of
    the memory for caches; a study's digest does not cover its machine."""
    share = sites.recipe.machine.frozen_cache_gib / plan.processes
    machine = dataclasses.replace(
        sites.recipe.machine, device=plan.device_of(number), frozen_cache_gib=share
    )
    return SimulatedSites(dataclasses.replace(sites.recipe, machine=machine), sites.ledgers)


@dataclass(frozen=True)
class _Pipes:
    """The ends of a worker's three pipes.

    Attributes:
        asked: Where the worker reads messages, which come from `ask`.
        ask: The coordinator's end.
        answers: Where the coordinator reads what the worker writes to `given`.
        given: The worker's end.
        alive: Closed for the worker when `lifeline` is.
        lifeline: Held by the coordinator's process only.
    """

    asked: Connection
    ask: Connection
    answers: Connection
    given: Connection
    alive: int
    lifeline: int

    @classmethod
    def made(cls) -> _Pipes:
        """Makes all three."""
        asked, ask = os.pipe()
        answers, given = os.pipe()
        return cls(
            Connection(asked, writable=False),
            Connection(ask, readable=False),
            Connection(answers, writable=False),
            Connection(given, readable=False),
            *os.pipe(),
        )

    def of(self, name: str, start: Callable[[], WorkerChild]) -> SiteWorker:
        """Starts the worker's process, and closes its ends in this one.

        Raises:
            OSError: It cannot be started; all ends are closed then.
        """
        try:
            child = start()
        except BaseException:
            self.ask.close()
            self.answers.close()
            os.close(self.lifeline)
            raise
        finally:
            self.asked.close()
            self.given.close()
            os.close(self.alive)
        return SiteWorker(name, self.ask, self.answers, child, self.lifeline)


def forked(name: str, setup: WorkerSetup) -> SiteWorker:
    """Starts a worker that is a fork of this process.

    Raises:
        OSError: The system starts no more processes.
    """
    pipes = _Pipes.made()

    def start() -> ForkedChild:
        with warnings.catch_warnings():
            # Python 3.12 warns of other threads; see `site_worker` for what they may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                run_as_fork(pipes.asked, pipes.given, pipes.alive, setup)
            finally:
                os._exit(1)  # whatever happened, the coordinator's code does not go on here
        return ForkedChild(pid)

    return pipes.of(name, start)


def in_a_thread(name: str, setup: WorkerSetup) -> SiteWorker:
    """Starts a worker that is a thread of this process, which does nothing else."""
    pipes = _Pipes.made()

    def work() -> None:
        torch.set_num_threads(setup.threads)
        with pipes.asked, pipes.given:
            try:
                serve(pipes.asked, pipes.given, setup)
            except Exception as error:
                pipes.given.send(RunEnding(portable(error)))

    thread = threading.Thread(target=work, name="sites", daemon=True)
    thread.start()
    os.close(pipes.alive)
    return SiteWorker(name, pipes.ask, pipes.answers, _ThreadChild(thread), pipes.lifeline)


def _anew(name: str, setup: WorkerSetup) -> SiteWorker:
    pipes = _Pipes.made()
    ends = (pipes.asked.fileno(), pipes.given.fileno())
    path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)

    def start() -> WorkerChild:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cloister.simulation.fresh_worker", *map(str, ends)],
            pass_fds=ends,
            stdin=pipes.alive,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the coordinator's process only
        )

    worker = pipes.of(name, start)
    worker.questions.send(setup)
    return worker
