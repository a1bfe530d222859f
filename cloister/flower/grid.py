"""Flower's Grid over the SuperLink's Runtime API, for a task that this process claimed."""

from __future__ import annotations

from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.flower.tasks import SERVER_PATIENCE, Runtime, Task, connect, patient_invoker


def grid_of(runtime: Runtime, task: Task, run: Run) -> HttpGrid:
    """The Grid of a run; its calls raise NetworkError once the run is no longer ours.

    Args:
        runtime: The SuperLink's.
        task: The run's, claimed.
        run: The run.
    """
    grid = HttpGrid(
        runtime.address,
        insecure=runtime.authority is None,
        root_certificates=runtime.authority,
        token=task.token,
    )
    # Its own invoker interrupts the whole process where the SuperLink does not know the task.
    grid._retry_invoker = patient_invoker()
    grid._client = connect(runtime, task.token)
    grid._client.patience = SERVER_PATIENCE
    grid.set_run(run)
    return grid
