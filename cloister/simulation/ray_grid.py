"""Implements Flower's Grid over the nodes of a Ray.

A place's process is asked for one turn at a time: it is told what its workers shall do, and returns
what they said. What a worker on another node asks of a ledger is carried out here, by the ledger's
only writer, before that worker goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cloister.errors import CloisterError
from cloister.simulation.far_files import FarCall, KeptHere
from cloister.simulation.ray_nodes import RayPlaces
from cloister.simulation.ray_plan import RayPlan
from cloister.simulation.ray_sites import CrewSetup
from cloister.simulation.sent_workspace import SentWorkspace
from cloister.simulation.site_worker import Said, Told
from cloister.simulation.study import SimulatedSites, SimulatedStudy
from cloister.simulation.worker_grid import DividedGrid
from cloister.training.workspace import Workspace


@dataclass
class CrewTurns:
    """The turns of a place's process.

    Attributes:
        host: Its machine, for messages.
        crew: Ray's handle.
        workers: The numbers, in the grid, of its workers.
        told: What its workers are told next, by their number there.
        open: Ray's reference to the turn that runs; None: none does.
    """

    host: str
    crew: Any
    workers: Sequence[int]
    told: list[tuple[int, Told]] = field(default_factory=list)
    open: Any = None

    def begin(self) -> None:
        """Begins a turn."""
        told, self.told = self.told, []
        self.open = self.crew.turn.remote(told)

    def said(self) -> list[tuple[int, Said]]:
        """Waits for the end of the turn, and returns what was said by the workers' numbers.

        Raises:
            CloisterError: The process or its node ended.
        """
        found, self.open = got(self.open, self.host), None
        return [(self.workers[number], said) for number, said in found]


@dataclass
class RayWorker:
    """A worker of a place, as the grid asks it.

    Attributes:
        turns: The place's.
        number: Its number there.
    """

    turns: CrewTurns
    number: int

    def ask(self, message: Told) -> None:
        """Tells it something in the place's next turn."""
        self.turns.told.append((self.number, message))


@dataclass
class RayGrid(DividedGrid):
    """A grid over the processes of a Ray.

    Attributes:
        turns: Of each place that has workers.
        kept: Carries out what workers on other nodes ask.
    """

    turns: Sequence[CrewTurns] = ()
    kept: KeptHere | None = None

    def _listen(self) -> None:
        """Waits until a place's turn ends, and takes what its workers said."""
        import ray

        for one in self.turns:
            if one.open is None and (one.told or self._asked.keys() & set(one.workers)):
                one.begin()
        running = {one.open: one for one in self.turns if one.open is not None}
        ended, _ = ray.wait(list(running), num_returns=1)
        for reference in ended:
            for number, said in running[reference].said():
                self._hear(number, said)

    def _hear(self, number: int, said: Said) -> None:
        if isinstance(said, FarCall):
            assert self.kept is not None
            self.workers[number].ask(self.kept.answer(said))
        else:
            super()._hear(number, said)


def got(reference: Any, host: str) -> Any:
    """Waits for a result of a place's process.

    Raises:
        CloisterError: The process or its node ended; or the error that it raised.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CloisterError):
            raise cause from None
        raise CloisterError(f"a process of Ray on {host} failed: {cause}") from error
    except ray.exceptions.RayError as error:
        if "raised in its creation task" in str(error):  # Ray has no class of its own for it
            why = str(error).strip().splitlines()[-1].strip()
            raise CloisterError(
                f"the process on {host} (Ray) did not start ({why}); nothing was charged by it: "
                "install there what this machine has, or leave that node out"
            ) from error
        raise CloisterError(
            f"the process on {host} (Ray) ended before its sites had answered "
            f"({type(error).__name__}: the node failed, or memory ran out); closed rounds are "
            "saved, and what its sites charged stays charged: once Ray no longer counts on it "
            "(`ray status`; up to a minute), resume the run on the nodes that are left (cloister "
            "simulate --resume --engine ray --out RUN)"
        ) from error


@contextmanager
def ray_grid(
    ray_places: RayPlaces,
    plan: RayPlan,
    sites: SimulatedSites,
    study: SimulatedStudy,
    workspace: Workspace,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> Iterator[RayGrid]:
    """Sends each place its sites' records and the base, and ends the workers afterwards.

    Args:
        ray_places: A Ray with a process in each place.
        plan: Which worker runs which site.
        sites: Finds a site by its context.
        study: The prepared study.
        workspace: Its base and network.
        on_error: Called with each error that a site answered with one word.

    Raises:
        CloisterError: A place cannot open its sites; nothing was charged.
    """
    import ray

    base = ray.put(SentWorkspace.of(workspace))
    device = workspace.network.device.type if plan.kind == "cpu" else plan.kind
    turns, opened = [], []
    for at in plan.used:
        place, workers = plan.places[at], plan.workers_at(at)
        names = {study.names[site] for site in plan.sites_at(at)}
        setup = CrewSetup(
            sites=dataclasses.replace(sites, prepared=study.part(names)),
            num_sites=len(study.names),
            workers=len(workers),
            threads=plan.threads,
            device=device,
            sharing=place.sharing,
            host=place.host,
            is_far=not place.is_here,
        )
        crew = ray_places.crews[at]
        turns.append(CrewTurns(place.host, crew, workers))
        opened.append(crew.open.remote(base, setup))
    kept = KeptHere(sites.ledgers, study.recipe.digest(), study.names, sites.opened)
    try:
        for one, reference in zip(turns, opened, strict=True):
            got(reference, one.host)
        by_number = {
            number: RayWorker(one, index)
            for one in turns
            for index, number in enumerate(one.workers)
        }
        asked = [by_number[number] for number in range(len(plan.workers))]
        yield RayGrid(len(study.names), plan, asked, on_error=on_error, turns=turns, kept=kept)
    finally:
        for one in turns:
            if one.open is None:
                one.crew.close.remote()
            else:  # in what it does, as by a power cut; its workers end with it
                ray.kill(one.crew)
