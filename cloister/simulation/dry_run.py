"""Runs all steps of a simulation before its first round: plan, base, data, gradients' proof."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloister.ledger.stated import Stated, of_plan
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, open_coordinator


@dataclass(frozen=True)
class Checked:
    """The facts of a study that can run, before its first round.

    Attributes:
        promises: The promise to each site, by site; empty without privacy.
        labels: Its classes or entity types; none for a causal LM.
        test_records: Records of the public test set.
        parameters: Number of parameters in the largest message.
        base_sha256: SHA-256 of the base's weights.
    """

    promises: dict[str, Stated]
    labels: tuple[str, ...]
    test_records: int
    parameters: int
    base_sha256: str


def dry_run(recipe: Recipe, events: Events | None = None) -> Checked:
    """Prepares a study and proves its per-record gradients; trains nothing and charges nothing.

    Files of a run before its first round are written to a temporary folder, which is removed.

    Args:
        recipe: The study.
        events: Callbacks for what happens.

    Raises:
        CloisterError: Any error that would end the run before its first round.
    """
    with tempfile.TemporaryDirectory(prefix="cloister-dry-run-") as folder:
        run = RunDirectory.create(Path(folder) / "run", recipe)
        coordinator = open_coordinator(recipe, run, events)
    simulated, workspace = coordinator.simulated, coordinator.coordinator.workspace
    return Checked(
        promises={name: of_plan(plan) for name, plan in simulated.plans.items()}
        if recipe.privacy.enabled
        else {},
        labels=simulated.recipe.task.labels,
        test_records=len(simulated.test),
        parameters=workspace.start.size,
        base_sha256=workspace.base_sha256,
    )
