"""Runs the same apps in this process, in worker processes, or on Flower's simulation runtime."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Literal

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from cloister.bounds import shortened
from cloister.errors import CloisterError, UsageError
from cloister.simulation.local_grid import SERVER_NODE, SimulatedGrid

Engine = Literal["local", "ray"]


def run_local(server_app: ServerApp, grid: SimulatedGrid) -> None:
    """Runs the ServerApp in this process, on sites of this process or of its workers."""
    context = Context(
        run_id=SERVER_NODE, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config={}
    )
    server_app(grid=grid, context=context)


def run_ray(server_app: ServerApp, client_app: ClientApp, num_sites: int) -> None:
    """Runs the apps on Flower's simulation runtime; each worker loads the base once.

    Raises:
        UsageError: Ray is not installed; or `RAY_ADDRESS` names no Ray that can run it.
        CloisterError: The runtime failed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--engine ray: Ray is not installed; install cloister with the extra `ray`, or use "
            "--engine local"
        )
    import torch
    from flwr.simulation import run_simulation

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    gpus = torch.cuda.device_count()
    failure: list[BaseException] = []

    # Flower runs the ServerApp in its own thread and replaces any error of it by its own, so ours
    # is kept here.
    def guarded(grid: object, context: Context) -> None:
        try:
            server_app(grid=grid, context=context)  # type: ignore[arg-type]
        except BaseException as error:
            failure.append(error)
            raise

    outer = ServerApp()
    outer.main()(guarded)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if os.environ.get("RAY_ADDRESS"):
            _join_ray(os.environ["RAY_ADDRESS"])
        try:
            run_simulation(
                server_app=outer,
                client_app=client_app,
                num_supernodes=num_sites,
                backend_config={
                    "client_resources": {
                        "num_cpus": 1,
                        # Workers share the GPUs evenly; Ray enforces no memory limit.
                        "num_gpus": min(1.0, gpus / num_sites) if gpus else 0.0,
                    },
                    "init_args": {"include_dashboard": False, "logging_level": logging.ERROR},
                },
            )
        except (Exception, SystemExit) as error:
            if failure:
                raise failure[0] from error
            raise CloisterError(f"Flower's simulation runtime failed: {error}") from error
    if failure:
        raise failure[0]


def _join_ray(address: str) -> None:
    """Connects to a Ray that runs already, which Flower's runtime then uses.

    Raises:
        UsageError: No Ray answers there, or it has nodes on other machines: workers read the run's
            records and write its ledgers, which are on this machine's disk.
    """
    import ray

    if not ray.is_initialized():
        path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        try:
            ray.init(
                address,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"RAY_ADDRESS: {shortened(address)} given in the environment, and no Ray can be "
                f"used there ({error}); correct or unset it, and one is started on this machine"
            ) from error
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = {str(n["NodeManagerHostname"]) for n in nodes if n["Alive"]}
    others = sorted(alive - {socket.gethostname()})
    if others:
        ray.shutdown()
        raise UsageError(
            f"RAY_ADDRESS: {shortened(address)} given in the environment, a Ray with nodes on "
            f"other machines ({', '.join(others)}); sites write their ledgers on this machine's "
            "disk, so every node must be on it: start one with `ray start --head` here, or unset "
            "RAY_ADDRESS"
        )
