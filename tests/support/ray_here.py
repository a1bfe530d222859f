"""A Ray without Ray's processes: what is sent is pickled as by Ray, and runs in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from cloister.simulation.ray_nodes import RayCrew, RayNode, RayPlaces


@dataclass(eq=False)
class Reference:
    """A result, or the error in place of it."""

    value: Any = None
    error: Exception | None = None


def sent(value: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(value))


@dataclass
class Method:
    """A method of an actor, as its handle shows it."""

    call: Callable[..., Any]

    def remote(self, *arguments: Any) -> Reference:
        given = [one.value if isinstance(one, Reference) else sent(one) for one in arguments]
        try:
            return Reference(sent(self.call(*given)))
        except ray.exceptions.RayError as error:
            return Reference(error=error)
        except Exception as error:
            return Reference(error=RayTaskError(self.call.__name__, "", error))  # type: ignore[arg-type]


class Handle:
    """An actor's handle; a method of the actor may be replaced by `dies`."""

    def __init__(self, actor: object) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self.actor, name))


class RayHere:
    """Nodes of a Ray that are all in this process: the first is that of the run.

    Args:
        patch: Replaces Ray's functions.
        cpus: Number of CPUs of each node.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *cpus: int) -> None:
        self.killed: list[object] = []
        patch.setattr(ray, "put", lambda value: Reference(sent(value)))
        patch.setattr(ray, "get", self._get)
        patch.setattr(ray, "wait", lambda references, num_returns: (references[:1], references[1:]))
        patch.setattr(ray, "kill", self._kill)
        nodes = [RayNode(f"n{k}", f"host{k}", own, k == 0) for k, own in enumerate(cpus)]
        self.handles = [Handle(RayCrew({})) for _ in nodes]
        self.places = RayPlaces("cpu", tuple(nodes), tuple(self.handles))

    def close(self) -> None:
        for handle in self.handles:
            handle.actor.close()  # type: ignore[attr-defined]

    def _kill(self, handle: Handle) -> None:
        self.killed.append(handle)
        handle.close.remote()

    @staticmethod
    def _get(references: Reference | Sequence[Reference]) -> Any:
        assert isinstance(references, Reference)
        if references.error is not None:
            raise references.error
        return references.value
