"""Threaded sites, divided among processes, which all connect to one gate.

A process runs one thread of Python at a time: with a thousand sites in one, answers come so late
that the gate ends their requests, and new TLS handshakes then take what time there was.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from typing import Any

from benchmarks.threaded_site import ThreadedSite

# Sites of a process: with 300 in one, 20 rounds of a study closed without a late answer.
EACH = 250
# Sites that connect at a time, in all processes together.
CONNECTING = 16
# Seconds between two counts of a process's answers, and those in which its threads end.
COUNTED, ENDED = 1.0, 60.0


@dataclass
class SiteProcesses:
    """Processes whose threads are sites.

    Attributes:
        processes: Each has up to `EACH` sites.
        answers: Answers by process, as they were counted last.
    """

    processes: Sequence[ForkProcess]
    answers: Any

    @property
    def answered(self) -> int:
        """Number of answers of all sites."""
        return sum(self.answers)

    @property
    def pids(self) -> list[int]:
        """The processes that run.

        Raises:
            RuntimeError: One has ended.
        """
        if ended := [one.name for one in self.processes if not one.is_alive()]:
            raise RuntimeError(f"{', '.join(ended)}: ended, see above")
        return [one.pid for one in self.processes if one.pid is not None]


@contextmanager
def serving(
    sites: Sequence[ThreadedSite], address: str, authority: bytes, patience: float
) -> Iterator[SiteProcesses]:
    """Connects sites and lets them answer.

    Args:
        sites: All of them.
        address: The gate's, HOST:PORT.
        authority: The coordinator's authority, in PEM.
        patience: Seconds in which a site connects.

    Yields:
        The processes, of which each site connects at its turn.
    """
    context = multiprocessing.get_context("fork")
    parts = [sites[at : at + EACH] for at in range(0, len(sites), EACH)]
    answers, stopped = context.Array("q", len(parts)), context.Event()
    turns = max(1, CONNECTING // len(parts))
    made = SiteProcesses(
        [
            context.Process(
                target=_serve,
                args=(part, address, authority, patience, turns, stopped, answers, at),
                name=f"sites {at * EACH} to {at * EACH + len(part) - 1}",
                daemon=True,
            )
            for at, part in enumerate(parts)
        ],
        answers,
    )
    for process in made.processes:
        process.start()
    try:
        yield made
    finally:
        stopped.set()
        for process in made.processes:
            process.join(ENDED + 2 * COUNTED)


def _serve(
    sites: Sequence[ThreadedSite],
    address: str,
    authority: bytes,
    patience: float,
    turns: int,
    stopped: Any,
    answers: Any,
    at: int,
) -> None:
    """A process: starts its sites, of which a few connect at a time, and counts their answers.

    Flower's connection ends the whole process if its answer comes too late and it asks once more.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    over = threading.Event()
    threads = [
        threading.Thread(target=site.serve, args=(address, authority, over), daemon=True)
        for site in sites
    ]
    for index, thread in enumerate(threads):
        before = sites[index - turns].connected if index >= turns else None
        if before is not None and not before.wait(patience):
            raise RuntimeError(f"{sites[index].name}: no turn to connect")
        thread.start()
    while not stopped.wait(COUNTED):
        answers[at] = sum(site.answered for site in sites)
    over.set()
    for thread in threads:
        thread.join(ENDED / len(threads))
    answers[at] = sum(site.answered for site in sites)
