"""Starts a Ray on this machine or joins one, and starts a process on each of its nodes.

Nothing here loads torch: Ray and its processes start while this process still loads it. A process
on a node (`RayCrew`) runs all sites of that node, in forks of itself, so a node has one base.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cloister.bounds import shortened
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:  # it loads torch
    from cloister.simulation.ray_sites import CrewSetup, NodeSites
    from cloister.simulation.sent_workspace import SentWorkspace
    from cloister.simulation.site_worker import Said, Told

# What a Ray of ours is started with, unless the environment says otherwise: no report to its
# makers, no note about a coming change, and processes of this one's priority (Ray's default is a
# niceness of 15), because this one waits for them.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}
# Ray sets them in its processes by the CPUs and GPUs that they asked for. A proof depends on them,
# so the processes of this node get those of this process.
_OURS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

# Addresses that Ray takes besides HOST:PORT: a Ray that it finds on this machine, or a new one.
_WORDS = ("auto", "local")
# Seconds until a port must take a connection; Ray waits as long for one of its attempts.
REACHED_WITHIN = 5.0


@dataclass(frozen=True)
class RayNode:
    """A place of a Ray where sites can run: a node, or one GPU of it.

    Attributes:
        node: Ray's id of the node.
        host: The name of its machine.
        cpus: Its CPUs.
        is_here: Whether it is the node of this process, whose disk has the run's folder.
        sharing: Number of places of the same node.
    """

    node: str
    host: str
    cpus: int
    is_here: bool
    sharing: int = 1


def places_of(nodes: list[Mapping[str, Any]], here: str, kind: str) -> list[RayNode]:
    """Returns the places where sites can run, this process's node first.

    Args:
        nodes: What `ray.nodes()` returns.
        here: Ray's id of the node of this process.
        kind: `cuda`: each GPU is a place, with its part of the node's CPUs; else each node is one.
    """
    found = []
    for node in nodes:
        has = node["Resources"]
        cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        count = gpus if kind == "cuda" else min(cpus, 1)
        if node["Alive"] and count:
            one = RayNode(
                str(node["NodeID"]),
                str(node["NodeManagerHostname"]),
                max(cpus // count, 1),
                node["NodeID"] == here,
                count,
            )
            found += [one] * count
    return sorted(found, key=lambda one: not one.is_here)


class RayCrew:
    """The process of a place, which Ray runs; see `ray_sites.NodeSites`.

    Args:
        environment: Variables of the environment to set, or to remove if they are None.
    """

    def __init__(self, environment: Mapping[str, str | None]) -> None:
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        from cloister.quiet import keep_quiet

        keep_quiet()
        import cloister.simulation.ray_sites  # noqa: F401  # loads torch while nothing waits for it

        self._sites: NodeSites | None = None

    def open(self, sent: SentWorkspace, setup: CrewSetup) -> None:
        """Opens the sites of this place, and ends those of an earlier run."""
        from cloister.simulation.ray_sites import NodeSites

        self.close()
        self._sites = NodeSites(sent, setup)

    def turn(self, told: list[tuple[int, Told]]) -> list[tuple[int, Said]]:
        """Tells its workers something, and waits until one of them says something."""
        assert self._sites is not None  # opened before
        return self._sites.turn(told)

    def close(self) -> None:
        """Ends the workers."""
        if self._sites is not None:
            self._sites.end()
            self._sites = None


@dataclass(frozen=True)
class RayPlaces:
    """A Ray that is connected, with a process that starts in each place.

    Attributes:
        kind: The kind of device that sites compute on.
        places: Where sites can run.
        crews: Ray's handles of the processes, one a place.
    """

    kind: Literal["cpu", "cuda"]
    places: tuple[RayNode, ...]
    crews: tuple[Any, ...] = field(repr=False)


@contextmanager
def ray_places(address: str | None = None, device: str | None = None) -> Iterator[RayPlaces]:
    """Starts or joins a Ray, and ends what was started here.

    Args:
        address: Address of a Ray that runs already; None: that of `RAY_ADDRESS`. Without either a
            Ray is started on this machine, with as many CPUs as `OMP_NUM_THREADS` says, else as
            there are. A Ray to which this process is connected is used as it is.
        device: `machine.device`; None: GPUs, if Ray has some.

    Raises:
        UsageError: Ray is not installed; or no Ray that can run sites answers at the address.
        CloisterError: Ray cannot be started here.
    """
    check_installed()
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(*_stated(address))
    crews: list[Any] = []
    try:
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
        crews += [_crew(place, kind) for place in places]
        yield RayPlaces(kind, tuple(places), tuple(crews))
    finally:
        if is_ours:
            with warnings.catch_warnings():  # Ray leaves files and processes to the collector
                warnings.simplefilter("ignore", ResourceWarning)
                ray.shutdown()
                gc.collect()
        else:
            for crew in crews:
                with suppress(Exception):  # it may be dead
                    ray.kill(crew)


def ray_of(
    engine: str, address: str | None, device: str | None
) -> AbstractContextManager[RayPlaces | None]:
    """Returns the context of an engine's Ray, in which several studies may run; None: it has none.

    Args:
        engine: The engine.
        address: As in `ray_places`.
        device: As in `ray_places`.
    """
    return ray_places(address, device) if engine == "ray" else nullcontext()


def check_ray_address(option: str, address: object, engine: str) -> None:
    """Refuses an address that no Ray can have, before anything is loaded.

    Args:
        option: The option's name, for messages.
        address: What is given; None: nothing is.
        engine: The engine.

    Raises:
        UsageError: It is neither HOST:PORT nor one of Ray's words, or the engine uses no Ray.
    """
    if address is None:
        return
    if engine != "ray":
        raise UsageError(
            f"{option}: {shortened(address)} given with the engine {engine}, which uses no Ray; "
            "choose the engine ray, or leave it out"
        )
    if not isinstance(address, str) or (address not in _WORDS and _host_and_port(address) is None):
        raise UsageError(
            f"{option}: {shortened(address)} given; HOST:PORT of a Ray is needed that has a node "
            "on this machine (`ray start --address=HOST:PORT` here adds one), or `auto`"
        )


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Returns both parts of HOST:PORT; None: it is something else, such as a URL."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def checked_ray(address: str | None) -> str:
    """Checks what is known of the Ray that a run would use, and neither starts nor joins one.

    Args:
        address: As in `ray_places`.

    Returns:
        What was checked of it and what was not, as a sentence.

    Raises:
        UsageError: The address is not one of a Ray, or nothing answers there in `REACHED_WITHIN`
            seconds.
    """
    found, source = _stated(address)
    if found is not None:
        check_ray_address(source, found, "ray")
        _reach(source, found)
    if found in (None, "local"):
        return "Ray: a run would start one on this machine; this was not tried"
    if found == "auto":
        return "Ray: a run would look for one on this machine; this was not tried"
    return (
        f"Ray: {found} answers; whether it is a Ray of this version with a node on this machine "
        "was not tried"
    )


def _stated(address: str | None) -> tuple[str | None, str]:
    """Returns the address of a Ray that runs already, and who states it; None: one is started."""
    if address is not None:
        return address, "--ray-address"
    return os.environ.get("RAY_ADDRESS") or None, "RAY_ADDRESS, in the environment"


def _reach(source: str, address: str) -> None:
    """Refuses an address at which nobody listens: Ray itself would try it for minutes.

    Raises:
        UsageError: Nothing takes a connection there.
    """
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, REACHED_WITHIN).close()
    except OSError as error:
        raise UsageError(
            f"{source}: {shortened(address)} given, and nothing answers there "
            f"({error.strerror or error}); correct it, or leave it out, and one is started on this "
            "machine"
        ) from error


def check_installed() -> None:
    """Refuses the engine where Ray is not installed.

    Raises:
        UsageError: It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--engine ray: Ray is not installed; install cloister with the extra `ray`, or use "
            "--engine local"
        )


def cores() -> int:
    """Returns the number of cores that a Ray of ours uses: the user's statement, else all."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated):
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _connect(address: str | None, source: str) -> None:
    import ray

    check_ray_address(source, address, "ray")
    if address is not None:
        _reach(source, address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
