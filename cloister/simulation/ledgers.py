"""The ledgers of simulated sites, begun as an institution would begin its own."""

from __future__ import annotations

import math

from cloister.privacy.budget import Budget
from cloister.privacy.ledger import Ledger
from cloister.privacy.plan import Plan
from cloister.server.run_directory import RunDirectory
from cloister.simulation.study import SimulatedStudy


def begin_ledgers(study: SimulatedStudy, run: RunDirectory) -> None:
    """Begins every site's ledger that is not there yet.

    Raises:
        LedgerError: One cannot be written.
    """
    limits = study.recipe.privacy.site_budgets or (None,) * len(study.names)
    for name, limit in zip(study.names, limits, strict=True):
        path = run.ledger(name)
        if not path.exists():
            plan = study.plans[name]
            Ledger.create(path, simulated_budget(plan, limit), plan.unit)


def simulated_budget(plan: Plan, epsilon: float | None = None) -> Budget:
    """A lifetime budget for a simulated data set, which takes part in one study.

    Args:
        plan: The study's.
        epsilon: ε of the data set's life; None: what the plan costs.

    Guarantees:
        Without a limit of its own the budget covers the plan and nothing beside it. Its δ is twice
        the plan's, because a budget keeps half of its δ for each way to fit in
        (`cloister.privacy.budget`).
    """
    if epsilon is None:
        epsilon = plan.epsilon_after(plan.num_rounds) if plan.is_private else math.inf
    return Budget(epsilon=epsilon, delta=2 * plan.delta)
