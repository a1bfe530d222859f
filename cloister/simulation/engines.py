"""Runs the coordinator's app in this process, on whatever grid has the sites."""

from __future__ import annotations

from typing import Literal

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from cloister.simulation.local_grid import SERVER_NODE, SimulatedGrid

Engine = Literal["local", "ray"]


def run_apps(server_app: ServerApp, grid: SimulatedGrid) -> None:
    """Runs the ServerApp in this process, on the sites of a grid."""
    context = Context(
        run_id=SERVER_NODE, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config={}
    )
    server_app(grid=grid, context=context)
