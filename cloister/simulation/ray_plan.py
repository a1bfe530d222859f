"""Divides a simulation's sites among the nodes of a Ray, by their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from cloister.errors import UsageError
from cloister.simulation.ray_nodes import RayNode, RayPlaces
from cloister.simulation.study import SimulatedStudy
from cloister.simulation.worker_plan import PAYS, operations, tokens_of, useful
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class RayPlan:
    """Which worker of which place runs which site.

    Attributes:
        places: Where sites can run.
        kind: The kind of device.
        workers: The place of each worker, by index.
        threads: Threads of torch in each worker.
        sites: The worker of each site, by partition.
    """

    places: tuple[RayNode, ...]
    kind: str
    workers: tuple[int, ...]
    threads: int
    sites: tuple[int, ...]

    def __str__(self) -> str:
        count, nodes = len(self.workers), len({self.places[p].node for p in self.workers})
        of = f"{count} process{'es' * (count > 1)} on {nodes} node{'s' * (nodes > 1)} of Ray"
        if self.kind == "cuda":
            return f"workers: {of}, a GPU each"
        return f"workers: {of}, {self.threads} thread{'s' * (self.threads > 1)} each"

    def worker_of(self, partition: int) -> int:
        """Returns the worker, from 0, that runs a site in every round."""
        return self.sites[partition]

    @property
    def used(self) -> list[int]:
        """Returns the places that have a worker, in order."""
        return sorted(set(self.workers))

    def workers_at(self, place: int) -> list[int]:
        """Returns the workers of a place, in order."""
        return [worker for worker, at in enumerate(self.workers) if at == place]

    def sites_at(self, place: int) -> list[int]:
        """Returns the sites of a place, by partition."""
        there = set(self.workers_at(place))
        return [site for site, worker in enumerate(self.sites) if worker in there]


def plan_of_ray(study: SimulatedStudy, workspace: Workspace, ray: RayPlaces) -> RayPlan:
    """Returns how a study's sites are divided among the places of a Ray.

    Raises:
        UsageError: A place is on another node, and the study keeps there what cannot be kept apart.
    """
    pays = operations(study, workspace) >= PAYS
    plan = plan_ray(ray.places, ray.kind, tokens_of(study), pays=pays)
    far = sorted({plan.places[at].host for at in plan.used if not plan.places[at].is_here})
    if far and any(one.bands for one in study.plans.values()):
        raise UsageError(
            f"privacy.noise_bands: {study.recipe.privacy.noise_bands} given; the process that "
            "draws correlated noise keeps it beside the site's ledger, but this Ray has other "
            f"nodes ({', '.join(far)}): use --engine local, or a Ray of this node alone"
        )
    return plan


def plan_ray(
    places: Sequence[RayNode], kind: str, tokens: Sequence[float], *, pays: bool
) -> RayPlan:
    """Returns how sites are divided: one worker a GPU, or as many as there are CPUs.

    As with the local engine, no more workers are used than end a round sooner, and they divide the
    CPUs that are left as threads. Sites go to the worker that has the fewest tokens, longest first.

    Args:
        places: Where sites can run, at least one.
        kind: The kind of device.
        tokens: The tokens of each site's records, by partition.
        pays: Whether there is enough work for more than one worker.
    """
    if not pays:  # where the run's folder is, if sites can run there
        places = tuple(places)
        return RayPlan(places, kind, (0,), places[0].cpus, (0,) * len(tokens))
    most = len(places) if kind == "cuda" else sum(place.cpus for place in places)
    count = useful(len(tokens), most)
    if kind == "cuda":
        workers = list(range(count))
        threads = min(places[at].cpus for at in workers)
    else:
        threads = _threads([place.cpus for place in places], count)
        workers = _spread([place.cpus // threads for place in places], count)
    return RayPlan(tuple(places), kind, tuple(workers), threads, _divided(tokens, count))


def _threads(cpus: Sequence[int], workers: int) -> int:
    """Returns the most threads with which so many workers fit onto these nodes."""
    return next((t for t in range(max(cpus), 1, -1) if sum(own // t for own in cpus) >= workers), 1)


def _spread(room: Sequence[int], workers: int) -> list[int]:
    """Returns the place of each worker, each time the one with the most room left."""
    left, found = list(room), []
    for _ in range(workers):
        place = left.index(max(left))
        left[place] -= 1
        found.append(place)
    return sorted(found)


def _divided(tokens: Sequence[float], workers: int) -> tuple[int, ...]:
    """Returns the worker of each site: longest first, each to the worker with the least so far."""
    loads = [(0.0, 0, worker) for worker in range(workers)]  # tokens, sites, worker
    chosen = [0] * len(tokens)
    for site in sorted(range(len(tokens)), key=lambda one: -tokens[one]):
        size, count, worker = heappop(loads)
        chosen[site] = worker
        heappush(loads, (size + tokens[site], count + 1, worker))
    return tuple(chosen)
