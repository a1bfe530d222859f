"""The coordinator's Flower ServerApp: a thin shell around `run_study`."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cloister.server.rounds import run_study
from cloister.server.study import ServerStudy
from cloister.strategies.strategy import ServerState


def make_server_app(
    open_study: Callable[[Context], ServerStudy],
    on_end: Callable[[ServerState], None],
) -> ServerApp:
    """A ServerApp for the study that `open_study` finds from the Flower context.

    Args:
        open_study: Makes or resumes the study.
        on_end: Called with the final state.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        on_end(run_study(grid, open_study(context)))

    return app
