"""Scores a simulated study's adapter on the records that its sites held out of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloister.errors import UsageError
from cloister.export.adapter_folder import load_released, read_released
from cloister.export.forms.finished import PERSONAL
from cloister.simulation.study import prepare
from cloister.tasks.plugins import check_trusted
from cloister.training.machine import MachineConfig
from cloister.trust.held_out.measured import HeldOutMeasured, measure_records
from cloister.trust.opening import recipe_of


def evaluate_held_out(
    run: Path, plugin: str | None, on_stage: Callable[[str], None]
) -> dict[str, HeldOutMeasured]:
    """Scores a finished simulation's adapter on each site's held-out records.

    Where each site kept a part of its adapter (`lora.train = "b-kept"`), its own one is scored.

    Args:
        run: The run's folder.
        plugin: The plug-in of its task that may run its code; None: none.
        on_stage: Is called with the name of each stage.

    Returns:
        The scores by site.

    Raises:
        UsageError: The run held nothing out, or is an adapter alone.
        DataError: The records cannot be read, or none can be scored.
        BadFileError: The run did not finish, or its adapter is damaged.
        ModelFileError: The base is missing, or is not the one that was trained.
    """
    folder, recipe = recipe_of(run)
    check_trusted(read_released(folder).task, plugin, "--plugin")
    if recipe is None or recipe.data.held_out_share is None:
        what = "is an adapter without its run" if recipe is None else "held no records out"
        raise UsageError(
            f"--held-out: {run} {what}; give the folder of a simulation with data.held_out_share, "
            "or at a site use cloister site evaluate"
        )
    on_stage("reading the records")
    apart = prepare(recipe).held_out
    tokens = MachineConfig().plain_tokens
    found, opened = {}, None
    for name, records in apart.items():
        # Where each site kept a part of its adapter, there is no model but the sites' own.
        kept = recipe.lora.train == "b-kept"
        if opened is None or kept:
            on_stage("loading the base")
            opened = load_released(folder.parent / PERSONAL / name if kept else folder)[1]
        found[name] = measure_records(opened, records, recipe.privacy.unit, tokens, on_stage)
    return found
