"""`cloister simulate`: a whole federated study on this machine."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import CloisterError, UsageError

EXAMPLE = """
Runs a federated study on this machine: every site's training, noise and accounting as they would
run at an institution. Without a recipe: four synthetic hospitals at ε = 8, and the same without
privacy beside it.

Examples:

    cloister simulate

    cloister simulate simulations/bank_intents.toml --set data.train=train.jsonl
    --set data.test=test.jsonl --out runs/bank

    cloister simulate --resume --out runs/bank
"""


class EngineName(StrEnum):
    """The engine in which simulated sites run."""

    LOCAL = "local"
    RAY = "ray"


def simulate(
    recipe: Annotated[
        Path | None, typer.Argument(help="The study's recipe (TOML). Absent: the quickstart.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a field; may be repeated."),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="This process, or Flower's runtime on Ray.")
    ] = EngineName.LOCAL,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. Absent: runs/NAME-TIME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")
    ] = False,
    twin: Annotated[
        bool | None,
        typer.Option(
            "--twin/--no-twin",
            help="Also run the same without privacy, untuned. Absent: only without a recipe.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.")
    ] = False,
) -> None:
    """Run a federated study on this machine."""
    from cloister.recipe import read_recipe, read_run_recipe, warnings

    if resume and (out is None or recipe is not None or assignments):
        raise UsageError(
            "--resume: give the run's folder as --out, and nothing else; its own recipe.toml is "
            "used"
        )
    if resume and out is not None:
        if not (out / "recipe.toml").is_file():
            raise UsageError(f"--resume: {out} is no run's folder: it has no recipe.toml")
        study = read_run_recipe(out / "recipe.toml")
    else:
        study = read_recipe(recipe, assignments or [])
    with_twin = (recipe is None and not resume) if twin is None else twin
    with_twin = with_twin and study.privacy.enabled

    from cloister.api.simulating import run_study
    from cloister.cli.display import Display
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.run import Events

    folder = out or Path("runs") / f"{study.study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = RunDirectory.reopen(folder) if resume else RunDirectory.create(folder, study)
    display = Display(study, closed_rounds=len(run.metrics()))
    for note in warnings(study):
        display.warn(note)
    events = Events(
        display.on_stage,
        display.on_step,
        display.on_round,
        display.note,
        display.warn,
        on_base=display.note,
    )
    try:
        with display:
            result = run_study(study, run, engine.value, with_twin, events)
    except KeyboardInterrupt:
        raise CloisterError(
            f"interrupted in round {display.closed_rounds + 1}; {display.closed_rounds} rounds "
            f"are saved in {run.path}; go on with: cloister simulate --resume --out {folder}"
            f"{' --twin' if with_twin else ''}"
        ) from None
    display.summary(result.finished)
    if as_json:
        typer.echo(json.dumps(result.to_json()))


simulate.__doc__ = EXAMPLE
