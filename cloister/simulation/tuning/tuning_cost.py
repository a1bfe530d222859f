"""What the trials of a search cost together, from their plan alone.

Math:
    A setting follows from the scores of earlier trials, and those from what the sites released, so
    the trials compose adaptively. All of them take steps of one kind: the same noise, sample rate
    and unit. Whatever was released before, each step has one dominating pair, so N trials of T
    steps are dominated by its N·T-fold product (Zhu, Dong & Wang 2022, arXiv:2106.08567, theorem
    10): the PLD of N·T steps is a promise for all of them. That is the first rule of a data set's
    budget (`cloister.ledger.budget`), which charges each trial to the ledger that the earlier ones
    charged.

    The score is computed on public records, of what the sites released: post-processing. No
    smaller ε is claimed because one trial wins: the coordinator and the other sites see all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cloister.data.config import CHINESE_SHOPS, GENERATED, QUESTIONS
from cloister.errors import BudgetError, RefusedError, UsageError
from cloister.ledger.budget import most_steps
from cloister.ledger.history import request_of
from cloister.ledger.stated import Stated, of_plan
from cloister.privacy.accounting import LARGEST_EPSILON, epsilon
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.simulation.plans import plans_of
from cloister.simulation.policies import simulated_budget
from cloister.simulation.tuning.search_space import Searched

# Generated records: public by construction.
BUILT_IN_SOURCES = frozenset({*GENERATED.values(), CHINESE_SHOPS, QUESTIONS})
# Fields that change a plan's noise, rate or number of steps; the others leave its ε as it is.
OF_THE_PLAN = frozenset(
    {"training.expected_batch_size", "training.local_steps", "federation.num_rounds"}
)


def check_declared(recipe: Recipe, *, is_public: bool, budget: float | None) -> None:
    """Refuses a search whose user did not say what the records are, or whose recipe cannot compose.

    Args:
        recipe: The recipe before any setting is changed.
        is_public: Whether the user declares that its training records are public.
        budget: ε for all trials together; None: none is stated.

    Raises:
        UsageError: Both are given, or the budget is stated twice.
        RefusedError: Neither is given, or ε of all trials cannot be stated.
    """
    if is_public and budget is not None:
        raise UsageError("--public, --budget: both given; public records need no budget")
    if budget is None:
        if is_public or recipe.data.train in BUILT_IN_SOURCES:
            return
        raise RefusedError(
            f"{recipe.data.train}: every trial is a study on these records, and the ε of all "
            "trials add up, since their rounds are seen. If the records are private, state the ε "
            "that all trials together may cost, with --budget EPSILON; if they are public, say so "
            "with --public. Nothing was charged"
        )
    if not 0 < budget <= LARGEST_EPSILON:
        raise UsageError(
            f"--budget: {budget:g} given; more than 0 and at most {LARGEST_EPSILON:g} is needed"
        )
    if not recipe.privacy.enabled:
        raise RefusedError("privacy.enabled: false given with --budget; its ε is ∞")
    if recipe.privacy.site_budgets:
        raise UsageError(
            "privacy.site_budgets: given with --budget, which is the budget of every site; leave "
            "one of them out"
        )
    if recipe.privacy.site_epsilon is not None:
        raise RefusedError(
            "privacy.site_epsilon: the ε of whole sites over several trials is not computed; "
            "leave it out, or tune on public records with --public"
        )


def check_composed(searched: Sequence[Searched]) -> None:
    """Refuses fields that change the plan: with a budget, all trials take steps of one kind.

    Raises:
        UsageError: A searched field changes noise, sample rate or number of steps.
    """
    for one in searched:
        if one.field in OF_THE_PLAN:
            raise UsageError(
                f"--search {one.field}: it changes the noise or the number of steps, and with "
                "--budget all trials have one plan; set it with --set, or tune it on public "
                "records with --public"
            )


def together(recipe: Recipe, studies: int, budget: float) -> Stated:
    """Returns what all trials promise together, the largest ε of the sites.

    Args:
        recipe: The recipe of any trial.
        studies: Number of studies: trials, times seeds.
        budget: ε that they may cost.

    Raises:
        BudgetError: The budget does not cover all of them.
        RefusedError: No noise meets the target, or the accountants disagree.
    """
    plans = list(dict.fromkeys(plans_of(recipe, recipe.data.site_names).values()))
    largest = max((of_plan(plan) for plan in plans), key=lambda one: one.epsilon)
    total = max(epsilon(plan.releases * studies, plan.delta) for plan in plans)
    affordable = min(_affordable(plan, budget) for plan in plans)
    if affordable < studies:
        raise BudgetError(
            f"{studies} studies cost ε = {total:.4g} together, and the budget of ε = {budget:g} "
            f"covers {affordable}: state more with --budget, or try fewer settings or seeds. "
            "Nothing was charged"
        )
    return dataclasses.replace(largest, epsilon=total)


def _affordable(plan: Plan, budget: float) -> int:
    """Returns the number of such plans that the ledger's first rule allows; of a plan with several
    kinds of releases at most one, because then that rule fixes its list."""
    request = request_of(plan)
    return most_steps(request, simulated_budget(plan, budget)) // request.planned_steps
