"""Decides how many processes run a simulation's sites, and with how many threads each.

Kernels of a small base keep few cores busy: between two of them Python runs on one. Sites are
independent, so processes that train different sites use all cores. The number of threads that
torch may use (`OMP_NUM_THREADS`) is the user's statement of how many cores that is; it is divided
among the processes. Rounding depends on the threads of a process, so results are those of one
process with as many threads as each has, bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch

from cloister.errors import RefusedError
from cloister.models.device import find_device
from cloister.simulation.study import SimulatedStudy, units_of
from cloister.training.workspace import Workspace

# Floating-point operations of one pass over all records from which workers are used unasked. A core
# does 2·10¹⁰ to 5·10¹⁰ a second, so they take some seconds; to fork a worker takes about 0.1 s.
PAYS = 2e11
# Units whose lengths are looked at; the estimate needs one digit.
_LOOKED_AT = 100


@dataclass(frozen=True)
class WorkerPlan:
    """How a simulation's sites are spread over processes.

    Attributes:
        processes: Number of worker processes.
        threads: Threads of torch in each.
        is_forked: Whether they are forks of this process, which share its base, records and states.
            Else each is started anew, and loads a base of its own.
        kind: The kind of device that each computes on; of `cuda`, worker k uses GPU k.
    """

    processes: int
    threads: int
    is_forked: bool
    kind: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)} each"
        if self.is_forked:
            return f"workers: {self.processes} processes of {threads}, which share one base"
        places = "a GPU each" if self.kind == "cuda" else threads
        return f"workers: {self.processes} processes, {places}; each loads a base of its own"

    def worker_of(self, partition: int) -> int:
        """Returns the worker, from 0, that runs a site in every round: its ledger's only writer."""
        return partition % self.processes

    def device_of(self, worker: int) -> str:
        """Returns `machine.device` of a worker."""
        return f"cuda:{worker}" if self.kind == "cuda" else self.kind


class Threaded(Protocol):
    """A plan of workers."""

    @property
    def threads(self) -> int:
        """Returns the number of torch's threads in each."""


def plan_workers(
    study: SimulatedStudy, workspace: Workspace, asked: int | None = None
) -> WorkerPlan | None:
    """Returns how many workers run a study's sites; None: they run in this process.

    Unasked, workers are used where they are forks and there is work for them (`PAYS`): as many as
    torch has threads, at most one a site, and no more than end a round sooner. On GPUs they are
    used only if asked for, because each loads a base of its own.

    Args:
        study: The study.
        workspace: Its base.
        asked: The number that is asked for; None: none is.

    Raises:
        RefusedError: More are asked for than there are GPUs.
    """
    sites, machine = len(study.names), study.recipe.machine
    kind = find_device(machine.device).type
    forks = kind == "cpu" and can_fork()
    threads = torch.get_num_threads()
    if asked is None:
        if not forks or machine.processes or operations(study, workspace) < PAYS:
            return None
        asked = threads
    processes = useful(sites, asked)
    if processes < 2:
        return None
    if kind == "cuda" and processes > torch.cuda.device_count():
        raise RefusedError(
            f"workers: {asked} given, and each needs its own GPU, but torch finds "
            f"{torch.cuda.device_count()} GPU(s) here; set workers to that or fewer"
        )
    return WorkerPlan(processes, max(threads // processes, 1), forks, kind)


def useful(sites: int, most: int) -> int:
    """Returns the fewest workers with which a round ends as soon as with `most`.

    Equal sites in whole turns: of 10 sites on 8 workers two have two, as on 5 workers all have.
    """
    turns = -(-sites // min(most, sites))
    return -(-sites // turns)


def can_fork() -> bool:
    """Whether a fork of this process can train.

    Not on macOS, whose own libraries do not survive a fork; and not beside a GPU, whose driver and
    whose threads in torch's autograd engine do not either, also if the study is on the CPU.
    """
    return sys.platform == "linux" and torch.accelerator.current_accelerator(True) is None


def operations(study: SimulatedStudy, workspace: Workspace) -> float:
    """Estimates the floating-point operations of one pass forward over all records of all sites.

    Two for each token and parameter, tables of embeddings left out; a study does at least this.
    """
    backbone = workspace.network.backbone
    tables = {id(m.weight) for m in backbone.modules() if isinstance(m, torch.nn.Embedding)}
    weights = sum(p.numel() for p in backbone.parameters() if id(p) not in tables)
    return 2.0 * weights * sum(tokens_of(study))


def tokens_of(study: SimulatedStudy) -> list[float]:
    """Estimates the tokens of each site's records, by partition."""
    found = []
    for name in study.names:
        units = units_of(study, name).units
        some = list(islice(units, _LOOKED_AT))
        read = sum(len(example.input_ids) for unit in some for example in unit)
        found.append(read * len(units) / max(len(some), 1))
    return found


@contextmanager
def threads_of(plan: Threaded | None) -> Iterator[None]:
    """Gives torch the number of threads of one worker, so that a proof holds for the workers.

    Args:
        plan: The workers; None: torch's threads stay.
    """
    before = torch.get_num_threads()
    if plan is not None:
        torch.set_num_threads(plan.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
