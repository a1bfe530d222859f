"""The SuperLink's Control API on a unix socket: registers nodes, starts and stops runs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from cloister.deployment.flower.sockets import SocketClient
from cloister.errors import NetworkError

Answer = TypeVar("Answer")

# The app that Flower requires. Ours has no code: coordinator and sites run what is installed.
BUNDLE = b"""\
[project]
name = "cloister-study"
version = "1.0.0"
description = "A study's recipe; the code is installed at every site"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "cloister"

[tool.flwr.app.components]
serverapp = "cloister.none:app"
clientapp = "cloister.none:app"

[tool.flwr.app.config]
recipe = ""
run = ""
"""


def empty_bundle() -> bytes:
    """Returns the app bundle of every study in the form of `flwr build`: it has no code."""
    listed = f"pyproject.toml,{hashlib.sha256(BUNDLE).hexdigest()},{8 * len(BUNDLE)}"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        for name, text in (("pyproject.toml", BUNDLE), (".info/CONTENT", listed.encode())):
            bundle.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


@dataclass(frozen=True)
class Node:
    """A site's node as the SuperLink knows it.

    Attributes:
        id: Flower's.
        key: Its public key in PEM.
        online: Whether its heartbeats arrive.
    """

    id: int
    key: str
    online: bool


class ControlClient(SocketClient, ControlHttpClient):
    """The Control API at a socket."""


class Control:
    """A connection to the Control API.

    Args:
        socket: Path of the SuperLink's unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = ControlClient(socket, [RuntimeVersionHttpInterceptor("flwr")])

    def register(self, key: str) -> None:
        """Allows a node to connect.

        Raises:
            NetworkError: The SuperLink does not answer, or refuses.
        """
        self._call(lambda: self._client.RegisterNode(RegisterNodeRequest(public_key=key.encode())))

    def unregister(self, node: int) -> None:
        """Forbids a node to connect.

        Raises:
            NetworkError: The SuperLink does not answer, or refuses.
        """
        self._call(lambda: self._client.UnregisterNode(UnregisterNodeRequest(node_id=node)))

    def nodes(self) -> list[Node]:
        """All nodes that may connect.

        Raises:
            NetworkError: The SuperLink does not answer.
        """
        response = self._call(lambda: self._client.ListNodes(ListNodesRequest()))
        return [
            Node(info.node_id, bytes(info.public_key).decode(), info.status == "online")
            for info in response.nodes_info
            if info.status != "unregistered"
        ]

    def start(self, config: Mapping[str, str]) -> int:
        """Starts a run; its executor gets `config`.

        Returns:
            Flower's id of the run.

        Raises:
            NetworkError: The SuperLink does not answer, or refuses.
        """
        content = empty_bundle()
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(config))
        )
        response = self._call(lambda: self._client.StartRun(request))
        if not response.HasField("run_id"):
            raise NetworkError(f"{self._socket}: the SuperLink did not start the run; see its log")
        return int(response.run_id)

    def stop(self, run: int) -> bool:
        """Stops a run; returns whether there was one to stop.

        Raises:
            NetworkError: The SuperLink does not answer.
        """
        response = self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run)))
        return bool(response.success)

    def unfinished(self) -> set[int]:
        """Ids of the runs that wait or run.

        Raises:
            NetworkError: The SuperLink does not answer.
        """
        response = self._call(lambda: self._client.ListRuns(ListRunsRequest()))
        return {
            int(run_id)
            for run_id, run in response.run_dict.items()
            if run.status.status != "finished"
        }

    def close(self) -> None:
        """Closes the connection to the SuperLink; no further call is possible."""
        self._client.close()

    def _call(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            raise NetworkError(
                f"{self._socket}: the SuperLink refused "
                f"({error.response.status_code}: {error.response.text[:200]})"
            ) from error
        except httpx.HTTPError as error:
            if isinstance(error.__cause__, PermissionError) or "Permission" in str(error):
                remedy = "run this as the user who runs the coordinator's service"
            else:
                remedy = "start it: cloister server start"
            raise NetworkError(
                f"{self._socket}: the SuperLink does not answer ({error}); {remedy}"
            ) from error
