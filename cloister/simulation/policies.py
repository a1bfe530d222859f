"""Makes the policy of a simulated site: it accepts its own study as planned, and nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloister.client.policy_file import AcceptPolicy, BudgetPolicy, PrivacyPolicy, SitePolicy
from cloister.ledger.budget import Budget
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe

if TYPE_CHECKING:  # it loads torch, before which budgets are checked
    from cloister.training.workspace import Workspace


def simulated_budget(plan: Plan, epsilon: float | None = None) -> Budget:
    """Returns a lifetime budget for a simulated data set, which takes part in one study.

    Args:
        plan: The study's plan.
        epsilon: ε of the data set's lifetime; None: the cost of the plan.

    Guarantees:
        If `epsilon` is None, the budget covers the plan and nothing else. Its δ is twice the
        plan's, because a budget reserves half of its δ for each of its two rules
        (`cloister.ledger.budget`).
    """
    if epsilon is None:
        epsilon = plan.epsilon_after(plan.num_rounds) if plan.is_private else math.inf
    return Budget(epsilon=epsilon, delta=2 * plan.delta)


def simulated_policy(
    recipe: Recipe,
    plan: Plan,
    budget: Budget,
    workspace: Workspace,
    partners: tuple[str, ...] = (),
) -> SitePolicy:
    """Returns a policy that accepts a plan unchanged.

    Args:
        recipe: The study's recipe.
        plan: The site's plan.
        budget: The site's budget.
        workspace: Has the base's hash and the modules that get adapters.
        partners: Public keys of the ledgers of the sites that share noise.
    """
    bound, noise = plan.max_grad_norm, plan.noise_multiplier
    if plan.evaluations is not None:
        noise = min(noise, plan.evaluations.noise_multiplier)
    return SitePolicy(
        budget=BudgetPolicy(epsilon=budget.epsilon, delta=budget.delta),
        privacy=PrivacyPolicy(
            unit=plan.unit,
            person=recipe.data.person,
            min_noise_multiplier=noise,
            max_grad_norm=math.inf if bound is None else bound,
            max_sample_rate=plan.sample_rate,
            max_delta=plan.delta,
        ),
        accept=AcceptPolicy(
            tasks=(recipe.task.kind,),
            base_sha256=(workspace.base_sha256,),
            target_modules=workspace.network.adapted_modules or (),
            max_rounds=plan.num_rounds,
            max_local_steps=plan.local_steps,
            evaluations=plan.evaluations is not None,
            votes=plan.votes is not None,
            noise_partners=partners,
            min_colluding=0,
        ),
    )
