"""The places of a Ray where sites can run, and the process that runs them there.

Nothing here loads torch: Ray and its processes start while this process still loads it. A process
on a node (`RayCrew`) runs all sites of that node, in forks of itself, so a node has one base.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cloister.bounds import shortened
from cloister.errors import UsageError

if TYPE_CHECKING:  # it loads torch
    from cloister.simulation.ray_sites import CrewSetup, NodeSites
    from cloister.simulation.sent_workspace import SentWorkspace
    from cloister.simulation.site_worker import Said, Told

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

    def ready(self) -> RayPlaces:
        """Returns it: nothing is waited for (`ray_start.AnyRay`)."""
        return self

    def leave(self) -> None:
        """Does nothing: whoever started it ends it."""


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
        address: As in `ray_start.ray_places`.

    Returns:
        What was checked of it and what was not, as a sentence.

    Raises:
        UsageError: The address is not one of a Ray, or nothing answers there in `REACHED_WITHIN`
            seconds.
    """
    found, source = stated_ray(address)
    if found is not None:
        check_ray_address(source, found, "ray")
        check_reached(source, found)
    if found in (None, "local"):
        return "Ray: a run would start one on this machine; this was not tried"
    if found == "auto":
        return "Ray: a run would look for one on this machine; this was not tried"
    return (
        f"Ray: {found} answers; whether it is a Ray of this version with a node on this machine "
        "was not tried"
    )


def stated_ray(address: str | None) -> tuple[str | None, str]:
    """Returns the address of a Ray that runs already, and who states it; None: one is started."""
    if address is not None:
        return address, "--ray-address"
    return os.environ.get("RAY_ADDRESS") or None, "RAY_ADDRESS, in the environment"


def check_reached(source: str, address: str) -> None:
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
