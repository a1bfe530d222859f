"""The sites of one place of a Ray: one base, and a worker for each share of the sites.

Workers are forks of the place's process, as in the local engine (`site_worker`), so that base,
records and proof are in memory once a node; beside a GPU, where nothing can be forked, or for one
worker, the sites run in a thread. On the node of the run's own process a worker writes its sites'
ledgers itself; on every other node it asks the run's process to (`far_files`).

Forks of a Ray process are safe for the reasons that `site_worker` gives: a fork keeps none of
Ray's descriptors and calls nothing of Ray. Arrays of Ray's object store stay mapped in it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from multiprocessing.connection import wait

import torch

from cloister.errors import CloisterError
from cloister.models.device import find_device
from cloister.simulation.sent_workspace import SentWorkspace
from cloister.simulation.site_worker import RunEnding, Said, Told, WorkerSetup
from cloister.simulation.stated_proofs import proofs_of
from cloister.simulation.study import SimulatedSites
from cloister.simulation.worker_plan import can_fork
from cloister.simulation.worker_start import SiteWorker, forked, in_a_thread
from cloister.training.free_memory import free_at_start

ADVICE = "--resume --engine ray --out RUN), with fewer CPUs (OMP_NUM_THREADS)"


@dataclass(frozen=True)
class CrewSetup:
    """What the process of a place runs.

    Attributes:
        sites: Finds a site by its context; its study has the records of this place's sites only.
        num_sites: Number of sites of the whole study.
        workers: Number of workers.
        threads: Threads of torch in each.
        device: The device on which they compute.
        sharing: Number of processes that divide the memory for caches of this machine.
        host: The machine's name, for messages.
        is_far: Whether the run's process is on another node, and keeps the sites' files.
    """

    sites: SimulatedSites
    num_sites: int
    workers: int
    threads: int
    device: str
    sharing: int
    host: str
    is_far: bool


class NodeSites:
    """The sites of one place.

    Args:
        sent: The workspace.
        setup: The sites.

    Raises:
        PreflightError: Gradients of this machine are not exact.
        CloisterError: A worker cannot be started.
    """

    def __init__(self, sent: SentWorkspace, setup: CrewSetup) -> None:
        device = find_device(setup.device)
        free_at_start(device)  # before anything of a study is in memory
        torch.set_num_threads(setup.threads)
        workspace = sent.opened(setup.device)
        study = setup.sites.prepared
        assert study is not None  # it was sent
        workspace.network.share_caches(setup.sharing)
        study = dataclasses.replace(study, workspace=workspace)
        if study.recipe.privacy.enabled:
            proofs_of(study, workspace)  # once for all workers, which are forked afterwards
        sites = dataclasses.replace(setup.sites, prepared=study)
        one = WorkerSetup(sites, setup.num_sites, setup.threads, setup.workers, setup.is_far)
        forks = setup.workers > 1 and device.type == "cpu" and can_fork()
        start = forked if forks else in_a_thread
        self._workers: list[SiteWorker] = []
        try:
            for number in range(setup.workers):
                name = f"worker {number + 1} of {setup.workers} on {setup.host} (Ray)"
                self._workers.append(dataclasses.replace(start(name, one), advice=ADVICE))
        except OSError as error:
            self.end()
            raise CloisterError(
                f"a worker cannot be started on {setup.host} ({error.strerror}); nothing was "
                "charged: give Ray fewer CPUs (OMP_NUM_THREADS)"
            ) from error

    def turn(self, told: list[tuple[int, Told]]) -> list[tuple[int, Said]]:
        """Tells workers something, and waits until at least one of them says something.

        Args:
            told: What each worker is told, by its number here.

        Returns:
            What they say, by number, in the order of each; a worker that ended says `RunEnding`.
        """
        said: list[tuple[int, Said]] = []
        try:
            for number, message in told:
                self._workers[number].ask(message)
            while ready := wait([one.answers for one in self._workers], 0 if said else None):
                said += [
                    (number, one.said())
                    for number, one in enumerate(self._workers)
                    if one.answers in ready
                ]
        except CloisterError as error:
            said.append((0, RunEnding(error)))
        return said

    def end(self) -> None:
        """Ends the workers in what they do, as by a power cut."""
        for worker in self._workers:
            worker.end(at_once=True)
        self._workers = []
