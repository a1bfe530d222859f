"""`cloister track`: sends a run's public figures to MLflow or Weights & Biases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import UsageError
from cloister.names import counted


def track(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Runs' folders; they may be unfinished.")
    ],
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="MLflow: a folder, or a server's http(s) address."),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Weights & Biases: the project's name."),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Folder of wandb's files, which wandb sync sends later.")
    ] = Path(),
    online: Annotated[
        bool, typer.Option("--online", help="For wandb: send to its service at once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send the public figures of runs to a tracker: scores on public sets, promised ε, bytes.

    Names of sites, paths, times and facts about this machine are not sent. A study never waits for
    a tracker: run the command again to send new rounds. Without a tracker, cloister compare shows
    the same figures.

    Example: cloister track runs/bank --mlflow mlruns
    """
    if (mlflow is None) == (wandb is None):
        raise UsageError("give either --mlflow PLACE or --wandb PROJECT")
    if online and wandb is None:
        raise UsageError("--online: works with --wandb only; name an MLflow server by its address")
    from cloister.server.run_directory import RunDirectory
    from cloister.server.trackers import mlflow_tracker, track_run, wandb_tracker

    found = []
    for run in runs:
        directory = RunDirectory.reopen(run)
        if mlflow is not None:
            tracker, place = mlflow_tracker(mlflow), f"mlflow {mlflow}"
        else:
            tracker = wandb_tracker(wandb or "", folder, is_online=online)
            place = f"wandb {wandb} {'online' if online else folder.absolute()}"
        told = track_run(directory, directory.recipe(), place, tracker)
        found.append({"run": str(run), "id": told.run, "rounds": told.rounds, "last": told.last})
        if not as_json:
            typer.echo(f"{run}: {counted(told.rounds, 'round')} to {place}, as {told.run}")
    if as_json:
        typer.echo(json.dumps({"runs": found}))
