"""Runs all steps of a simulation before its first round: plan, base, data, gradients' proof."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloister.ledger.ledger import Ledger
from cloister.ledger.stated import Stated, of_budget, of_plan
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.server.former_run import FormerRun
from cloister.server.run_directory import RunDirectory
from cloister.server.start import starting_adapter
from cloister.simulation.ledgers import go_on
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


def dry_run(
    recipe: Recipe,
    events: Events | None = None,
    former: FormerRun | None = None,
    workers: int | None = None,
) -> Checked:
    """Prepares a study and proves its per-record gradients; trains nothing and charges nothing.

    Files of a run before its first round are written to a temporary folder, which is removed.

    Args:
        recipe: The study.
        events: Callbacks for what happens.
        former: The finished run with whose adapter it begins; None: it begins afresh.
        workers: As the run itself will have it (`simulate`): the proof depends on their threads.

    Raises:
        CloisterError: Any error that would end the run before its first round.
    """
    with tempfile.TemporaryDirectory(prefix="cloister-dry-run-") as folder:
        run = RunDirectory.create(Path(folder) / "run", recipe)
        if former is not None:
            go_on(run, former)
        coordinator = open_coordinator(recipe, run, events, workers)
        starting_adapter(run, recipe, coordinator.coordinator.workspace)
        promises = {
            name: _promise(plan, Ledger(run.ledger(name)))
            for name, plan in coordinator.simulated.plans.items()
        }
    simulated, workspace = coordinator.simulated, coordinator.coordinator.workspace
    return Checked(
        promises=promises if recipe.privacy.enabled else {},
        labels=simulated.recipe.task.labels,
        test_records=len(simulated.test),
        parameters=workspace.start.size,
        base_sha256=workspace.base_sha256,
    )


def _promise(plan: Plan, ledger: Ledger) -> Stated:
    """The promise after this study: its plan's, or the budget's after an earlier study."""
    return of_budget(ledger.budget, ledger.unit, [plan]) if ledger.steps else of_plan(plan)
