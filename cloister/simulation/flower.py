"""Defines the apps that `flwr run .` starts from the project's folder (`[tool.flwr.app]`).

The run's configuration names the recipe: `recipe` (a file's absolute path; empty: the quickstart)
and `out` (the folder for the run's folder; relative to the SuperLink's working directory).
"""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context

from cloister.client.admission import Admitted
from cloister.client.app import Identity, make_client_app
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe import Recipe, read_recipe
from cloister.server.app import make_server_app
from cloister.server.run_directory import RunDirectory
from cloister.server.study import ServerStudy
from cloister.simulation.run import open_coordinator
from cloister.simulation.site_app import end_on_fault
from cloister.simulation.study import SimulatedSites
from cloister.strategies.strategy import ServerState

log = logging.getLogger(__name__)


def recipe_of(context: Context) -> Recipe:
    """Reads the recipe that a run's configuration names."""
    path = str(context.run_config["recipe"])
    return read_recipe(Path(path) if path else None)


def folder_of(context: Context) -> Path:
    """Returns the run's folder, from Flower's context."""
    return Path(str(context.run_config["out"])).absolute() / f"flower-{context.run_id}"


def _sites(context: Context) -> SimulatedSites:
    # Read the study that the coordinator saved when the run began: the recipe's file may have
    # changed since.
    run = RunDirectory.reopen(folder_of(context))
    return SimulatedSites(run.recipe(), run.path / "ledgers")


def _open_site(context: Context) -> Admitted:
    return _sites(context).admitted(context)


def _identify(context: Context) -> Identity:
    return _sites(context).identity(context)


class _Server:
    """Opens the study when Flower starts the run, and writes its results at the end."""

    def open(self, context: Context) -> ServerStudy:
        """Makes the run's folder and opens the study."""
        run = RunDirectory.create(folder_of(context), recipe_of(context))
        self._run = open_coordinator(run.recipe(), run)
        return self._run.study()

    def finish(self, state: ServerState) -> None:
        """Writes the results of the run."""
        result = self._run.finish(state)
        log.info("%s: %s", result.run_dir, dict(result.test))


_server = _Server()

client = make_client_app(_open_site, Unsigned(), on_error=end_on_fault, identify=_identify)
server = make_server_app(_server.open, _server.finish)
