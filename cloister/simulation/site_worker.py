"""A worker process of a simulation: answers the coordinator's messages for the sites it is given.

A worker is the only process that writes its sites' ledgers, keys of an epoch and personal
adapters; the coordinator's process only reads them. Questions and answers are Python's pickles on
pipes that only the two processes have. A worker is a fork of the coordinator's process, or is
started anew (`fresh_worker`).

**Why forks are safe here.** A fork has one thread, that which called `fork`, and a copy of every
lock as it was; what another thread held stays locked for ever, and threads of a pool are missing.

- OpenMP (libgomp) keeps a pool for each thread that computes. The forking thread's pool has lost
  its threads, and its next kernel would wait for them for ever (measured: torch 2.13 with two
  threads hangs). So a fork computes in a thread that it starts itself, which gets a pool of its
  own. torch sets the number of threads of that thread too.
- torch's autograd engine has threads only for accelerators; beside one nothing is forked
  (`worker_plan.can_fork`).
- Locks of Python's I/O and of a display's console may be held by the display's thread. So a fork
  replaces the streams and every logging handler before it writes anything; log records go to the
  coordinator's process, which writes them.
- Open files: a fork closes all but its pipes, so that no lock of the run's folder and no other
  worker's pipe stays open in it. Ledgers are opened for each transaction and are not open then.
- Noise comes from the operating system under a new key for each call (`privacy.entropy`), so two
  forks never draw the same.
"""

from __future__ import annotations

import gc
import logging
import logging.handlers
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
from flwr.app import Message

from cloister.errors import CloisterError
from cloister.models.handed_states import StatesPiece, pieces_of
from cloister.simulation.far_files import FarAnswer, FarCall, FarFiles
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.site_app import site_app
from cloister.simulation.study import SimulatedSites, workspace_of


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker runs.

    Attributes:
        sites: Finds a site by its context.
        num_sites: Number of sites of the study.
        threads: Threads of torch.
        processes: Number of workers.
        is_far: Whether the run's process is on another machine, and keeps the sites' files
            (`far_files`).
    """

    sites: SimulatedSites
    num_sites: int
    threads: int
    processes: int
    is_far: bool = False


@dataclass(frozen=True)
class SiteAnswer:
    """A site's answer to the message that the worker was sent last."""

    message: Message


@dataclass(frozen=True)
class Stepped:
    """A site took a local step."""


@dataclass(frozen=True)
class SiteError:
    """An error that a site answered with one word."""

    error: Exception


@dataclass(frozen=True)
class HandOver:
    """Asks a worker, after the last message to its sites, for what it cached of their records."""


@dataclass(frozen=True)
class HandedOver:
    """A worker's last word about `HandOver`, after the pieces."""


@dataclass(frozen=True)
class RunEnding:
    """An error that ends the simulation, in place of an answer."""

    error: Exception


Said = (
    SiteAnswer
    | Stepped
    | SiteError
    | RunEnding
    | StatesPiece
    | HandedOver
    | FarCall
    | logging.LogRecord
)
# What a worker is told: messages to its sites, and the answers to what it asks.
Told = Message | HandOver | FarAnswer


def serve(questions: Connection, answers: Connection, setup: WorkerSetup) -> None:
    """Answers questions until their pipe is closed."""

    def on_step() -> None:
        answers.send(Stepped())

    def on_error(error: Exception) -> None:
        answers.send(SiteError(portable(error)))

    def ask(call: FarCall) -> Any:
        answers.send(call)
        found: FarAnswer = questions.recv()  # no message comes before the open one is answered
        if found.error is not None:
            raise found.error
        return found.value

    sites = replace(setup.sites, opened=FarFiles(ask)) if setup.is_far else setup.sites
    grid = LocalGrid(site_app(sites, on_step, on_error), setup.num_sites)
    while True:
        try:
            message = questions.recv()
        except EOFError:
            return
        if isinstance(message, HandOver):
            assert setup.sites.prepared is not None  # asked of forks only
            for piece in pieces_of(workspace_of(setup.sites.prepared).network):
                answers.send(piece)
            answers.send(HandedOver())
            continue
        try:
            said: Said = SiteAnswer(grid.answer(message))
        except Exception as error:
            said = RunEnding(portable(error))
        answers.send(said)


def portable(error: Exception) -> Exception:
    """Returns an error, or one with its text if it cannot be sent (`errors.MisfitError`)."""
    try:
        found = pickle.loads(pickle.dumps(error))
    except Exception:
        return CloisterError(f"{type(error).__name__}: {error}")
    return error if isinstance(found, type(error)) else CloisterError(str(error))


def run_as_fork(
    questions: Connection, answers: Connection, alive: int, setup: WorkerSetup
) -> NoReturn:
    """Turns a fork of the coordinator's process into a worker; it never returns.

    Args:
        questions: Where messages come from.
        answers: Where answers go.
        alive: A pipe that closes when the coordinator's process ends, in whatever way.
        setup: What it runs; its study is prepared.
    """
    gc.freeze()  # the collector would write to every inherited page, and copy it
    _close_others({0, 1, 2, questions.fileno(), answers.fileno(), alive})
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the coordinator's process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout = sys.stderr = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    log_to(answers)

    def work() -> None:
        torch.set_num_threads(setup.threads)
        if setup.sites.prepared is not None:
            workspace_of(setup.sites.prepared).network.share_caches(setup.processes)
        serve(questions, answers, setup)

    end_after(work, answers)
    os.read(alive, 1)
    os._exit(0)


def end_after(work: Callable[[], None], answers: Connection) -> None:
    """Starts a thread that does the work and then ends the process, without `atexit`.

    Args:
        work: An error of it ends the simulation.
        answers: Where the error goes.
    """

    def run() -> None:
        code = 1
        try:
            work()
            code = 0
        except Exception as error:
            with suppress(OSError):  # the coordinator's process is gone
                answers.send(RunEnding(portable(error)))
        finally:
            os._exit(code)

    threading.Thread(target=run, name="sites", daemon=True).start()


def _close_others(kept: Collection[int]) -> None:
    """Closes all file descriptors but these."""
    for place in list(Path("/proc/self/fd").iterdir()):
        if int(place.name) not in kept:
            with suppress(OSError):  # that of the listing
                os.close(int(place.name))


class _Sent(logging.handlers.QueueHandler):
    """Sends log records to the coordinator's process."""

    def __init__(self, answers: Connection) -> None:
        super().__init__(answers)  # type: ignore[arg-type]
        self._answers = answers

    def enqueue(self, record: logging.LogRecord) -> None:
        """Sends a record, whose text is formatted already."""
        self._answers.send(record)


def log_to(answers: Connection) -> None:
    """Replaces every handler of every logger."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers, logger.propagate = [], True
    logging.root.handlers = [_Sent(answers)]
