"""Finds that no site's stated budget covers a round, before a record, base or torch is loaded."""

from __future__ import annotations

from cloister.errors import BudgetError
from cloister.ledger.budget import NO_ROUND_FITS, Spending, fits, terms_for
from cloister.ledger.history import request_of
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.simulation.plans import plans_of
from cloister.simulation.policies import simulated_budget


def budget_problem(recipe: Recipe) -> BudgetError | None:
    """Returns the error that refuses a study without a round; None: it has one, or no budgets.

    The rule is the ledger's, of a data set to which nothing was charged yet.

    Raises:
        RefusedError: No noise meets the target.
    """
    budgets = recipe.privacy.site_budgets
    if not budgets:
        return None
    plans = plans_of(recipe, recipe.data.site_names)
    # Of sites with one plan, the largest budget covers what any of theirs does.
    largest: dict[Plan, float] = {}
    for plan, budget in zip(plans.values(), budgets, strict=True):
        largest[plan] = max(budget, largest.get(plan, 0.0))
    is_covered = any(_covers_a_round(plan, budget) for plan, budget in largest.items())
    return None if is_covered else BudgetError(NO_ROUND_FITS)


def _covers_a_round(plan: Plan, epsilon: float) -> bool:
    budget, nothing = simulated_budget(plan, epsilon), Spending()
    first = request_of(plan, is_private=plan.is_private)
    return fits(first, nothing, budget, terms_for(first, nothing, budget))
