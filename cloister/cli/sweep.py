"""`cloister simulate --sweep` and `--seeds`: runs many settings into one folder and compares
them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:  # it loads what a refused option does not need
    from cloister.recipe import Recipe


def sweep(
    recipe: Path | None,
    assignments: Sequence[str],
    sweeps: Sequence[str],
    seeds: int,
    *,
    engine: Literal["local", "ray"],
    ray_address: str | None = None,
    out: Path | None,
    folds: int | None = None,
    is_verbose: bool,
    as_json: bool,
) -> None:
    """Runs a grid of settings over seeds; finished runs are skipped, unfinished ones go on."""
    from cloister.cli import compare as comparing
    from cloister.cli.display import Display
    from cloister.recipe import warnings
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.compare import compare
    from cloister.simulation.early import refuse_early
    from cloister.simulation.folds import folds_note
    from cloister.simulation.ray_start import ray_of
    from cloister.simulation.sweep import (
        Planned,
        open_sweep,
        plan_folds,
        plan_sweep,
        run_sweep,
    )

    if folds is None:
        planned = plan_sweep(recipe, assignments, sweeps, seeds)
    else:
        planned = plan_folds(recipe, assignments, folds)
    for one in planned.runs:
        _check_compared(one.recipe)
        refuse_early(one.recipe, engine)
    name = planned.runs[0].recipe.study.name
    folder = (
        out
        or Path("runs")
        / f"{name}-{'sweep' if folds is None else 'folds'}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    opened = open_sweep(folder, planned)
    first = Display(planned.runs[0].recipe)
    if folds is not None:
        if planned.runs[0].recipe.data.test is not None:
            first.note("--folds: data.test is not read; each part of data.train is held out once")
        first.note(folds_note(planned.runs[0].recipe, folds))
    for note in warnings(planned.runs[0].recipe):
        first.warn(note)

    def run(one: Planned, place: RunDirectory, number: int) -> None:
        from cloister.simulation.run import Events, simulate

        display = Display(one.recipe, closed_rounds=len(place.metrics()), is_verbose=is_verbose)
        display.note(f"run {number} of {len(planned.runs)}: {one.name}")
        events = Events(
            display.on_stage,
            display.on_step,
            display.on_round,
            display.note,
            display.warn,
            on_base=display.note,
            on_untrained=display.on_untrained,
        )
        with display:
            simulate(one.recipe, place, engine, events, ray=ray)

    device = planned.runs[0].recipe.machine.device
    try:
        with ray_of(engine, ray_address, device) as ray:
            skipped = run_sweep(planned, opened, run)
    except KeyboardInterrupt:
        raise CloisterError(
            f"interrupted; closed rounds are saved in {folder}; the same command continues, with "
            f"--out {folder}"
        ) from None
    if skipped:
        first.note(f"{skipped} of {len(planned.runs)} runs were finished before")
    found = compare([folder])
    picture = folder / "compare.png"
    comparing.draw(found, picture)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    comparing.show(found, picture)


def _check_compared(recipe: Recipe) -> None:
    """Refuses runs without a public score before anything is charged: a table compares them.

    Raises:
        UsageError: There is no public test set.
    """
    if recipe.data.test_source is None and recipe.data.fold is None:
        raise UsageError(
            "--sweep, --seeds: given without a public test set, on whose scores the runs would be "
            "compared; name data.test, or run each study by itself"
        )
