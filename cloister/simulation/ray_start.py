"""Starts or joins a Ray in a thread, while this process loads torch, the base and the records."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cloister.bounds import shortened
from cloister.errors import CloisterError, UsageError
from cloister.simulation.ray_nodes import (
    RayCrew,
    RayNode,
    RayPlaces,
    check_installed,
    check_ray_address,
    check_reached,
    places_of,
    stated_ray,
)

# What a Ray of ours is started with, unless the environment says otherwise: no report to its
# makers, no note about a coming change, processes of this one's priority (Ray's default is a
# niceness of 15), because this one waits for them, and no idle worker for each CPU, of which a node
# needs one alone.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",
}
# Ray sets them in its processes by the CPUs and GPUs that they asked for. A proof depends on them,
# so the processes of this node get those of this process.
_OURS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


class AnyRay(Protocol):
    """A Ray that may still be starting."""

    def ready(self) -> RayPlaces:
        """Waits until it has started, and returns where sites can run.

        Raises:
            CloisterError: As in `ray_places`.
        """

    def leave(self) -> None:
        """Begins to end it, if it is this process's: no study needs it any more."""


@dataclass
class StartingRay:
    """A Ray that another thread starts and ends.

    Attributes:
        thread: The thread.
        found: The end of its start.
        is_ours: Whether it is started or joined here.
    """

    thread: ThreadPoolExecutor
    found: Future[RayPlaces]
    is_ours: bool
    _left: Future[None] | None = None

    def ready(self) -> RayPlaces:
        """Waits until it has started; see `AnyRay`."""
        return self.found.result()

    def leave(self) -> None:
        """Begins to end it, after its start; the second time it does nothing."""
        if self._left is None:
            self._left = self.thread.submit(self._end)

    def wait(self) -> None:
        """Waits until it has ended."""
        self.leave()
        assert self._left is not None
        self._left.result()

    def _end(self) -> None:
        """Ends the Ray, or leaves one that is not ours and ends our processes there."""
        import ray

        if self.is_ours:
            ray.shutdown()
        elif self.found.exception() is None:
            for crew in self.found.result().crews:
                with suppress(Exception):  # it may be dead
                    ray.kill(crew)


@contextmanager
def ray_places(address: str | None = None, device: str | None = None) -> Iterator[StartingRay]:
    """Starts or joins a Ray while the context runs, and ends what was started here.

    Args:
        address: Address of a Ray that runs already; None: that of `RAY_ADDRESS`. Without either a
            Ray is started on this machine, with as many CPUs as `OMP_NUM_THREADS` says, else as
            there are. A Ray to which this process is connected is used as it is.
        device: `machine.device`; None: GPUs, if Ray has some.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address: before the context.
            No Ray that can run sites answers there: where it is waited for, or at the end.
        CloisterError: Ray cannot be started here: where it is waited for, or at the end.
    """
    check_installed()
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    is_ours = not ray.is_initialized()
    stated, source = stated_ray(address)
    if is_ours and stated is not None:
        check_ray_address(source, stated, "ray")
        check_reached(source, stated)

    def start() -> RayPlaces:
        if is_ours:
            _connect(stated, source)
        return _places(device)

    # One thread for both, because the system ends processes of Ray with the thread that started
    # them (PR_SET_PDEATHSIG of Linux).
    with ThreadPoolExecutor(1, "ray") as thread:
        starting = StartingRay(thread, thread.submit(start), is_ours)
        try:
            yield starting
        finally:
            starting.wait()
            with warnings.catch_warnings():  # Ray leaves files and processes to the collector
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
    starting.ready()


def ray_of(
    engine: str, address: str | None, device: str | None
) -> AbstractContextManager[StartingRay | None]:
    """Returns the context of an engine's Ray, in which several studies may run; None: it has none.

    Args:
        engine: The engine.
        address: As in `ray_places`.
        device: As in `ray_places`.
    """
    return ray_places(address, device) if engine == "ray" else nullcontext()


def cores() -> int:
    """Returns the number of cores that a Ray of ours uses: the user's statement, else all."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated):
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _connect(address: str | None, source: str) -> None:
    import ray

    named: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            ray.init("local", num_cpus=cores(), include_dashboard=False, **named)
        else:
            ray.init(address, **named)
    except Exception as error:  # Ray raises plain Exceptions, among others
        if address is None:
            raise CloisterError(
                f"Ray cannot be started on this machine ({error}); try again when it is less "
                "busy, or use --engine local"
            ) from error
        raise UsageError(
            f"{source}: {shortened(address)} given, and no Ray can be used there ({error}); "
            "correct it, or leave it out, and one is started on this machine"
        ) from error


def _places(device: str | None) -> RayPlaces:
    """Starts a process in each place of the Ray that is connected."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    here = str(ray.get_runtime_context().get_node_id())
    gpus = sum(int(n["Resources"].get("GPU", 0)) for n in nodes if n["Alive"])
    wants = device is None or device.startswith("cuda")
    kind: Literal["cpu", "cuda"] = "cuda" if wants and gpus else "cpu"
    places = places_of(nodes, here, kind)
    if not places:
        raise UsageError(
            f"--engine ray: no node of this Ray has a {'GPU' if kind == 'cuda' else 'CPU'} for "
            "sites; start one with `ray start`, or use --engine local"
        )
    return RayPlaces(kind, tuple(places), tuple(_crew(place, kind) for place in places))


def _crew(place: RayNode, kind: str) -> Any:
    """Starts the process of a place, which reserves the place's CPUs."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    kept = _OURS[:1] if kind == "cuda" else _OURS
    environment = {name: os.environ.get(name) for name in kept} if place.is_here else {}
    made = ray.remote(RayCrew).options(
        num_cpus=place.cpus,
        num_gpus=1 if kind == "cuda" else 0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
    )
    return made.remote(environment)
