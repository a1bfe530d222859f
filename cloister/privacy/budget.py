"""A data set's lifetime budget, and the rule by which a release fits into it. No disk.

Math:
    A budget (ε, δ) is split in two halves of δ, one for each way to fit, so that both together
    hold whatever is chosen adaptively (a union bound):

    1. While one plan is all that was ever run, its parameters were fixed in advance, and the PLD of
       the *whole* plan counts: it must be within (ε, δ/2).
    2. Otherwise later plans may depend on earlier releases, where PLDs do not compose. A Rényi
       filter does (Feldman & Zrnic 2021, arXiv:2008.11193, theorem 4.5): divergences at one order,
       fixed before anything is released, may add up to what converts to (ε, δ/2). The order is
       the one at which the budget affords most rounds like the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cloister.errors import UsageError
from cloister.privacy.accounting import SMALLEST_DELTA, epsilon, rdp_at, rdp_budget
from cloister.privacy.events import GaussianEvent

# A sum of n rounded divergences is at most this factor times n below the exact one (float64).
ROUNDING_UP = 1 + 2**-50

# Orders that the filter chooses from: dense where subsampled mechanisms of ε = 0.5…20 end (1.5…12).
ORDERS = (1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0,
          12.0, 14.0, 16.0, 20.0, 24.0, 32.0, 48.0, 64.0, 128.0)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all releases from one data set together may cost, over its whole life.

    Attributes:
        epsilon: ε; ∞ where nothing is protected (simulations without privacy).
        delta: δ.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise UsageError(f"budget.epsilon: {self.epsilon} given; more than 0 is needed")
        if not 2 * SMALLEST_DELTA <= self.delta < 1:  # half of it is for each way to fit
            raise UsageError(
                f"budget.delta: {self.delta} given; from {2 * SMALLEST_DELTA:g} to 1 is needed"
            )


@dataclass(frozen=True, kw_only=True)
class Request:
    """A round that a site is asked to run.

    Attributes:
        plan: Digest of its plan.
        event: What the round releases.
        planned: What the plan's rounds release together.
    """

    plan: str
    event: GaussianEvent
    planned: GaussianEvent


@dataclass
class Spending:
    """What was charged so far; grows only.

    Attributes:
        order: The Rényi filter's; None before the first charge.
        divergence: Sum of divergences at that order, never below the exact sum.
        steps: Steps by (noise multiplier, sample rate, is private).
        plans: Steps by plan.
    """

    order: float | None = None
    divergence: float = 0.0
    steps: dict[tuple[float, float, bool], int] = field(default_factory=dict)
    plans: dict[str, int] = field(default_factory=dict)

    def add(self, plan: str, event: GaussianEvent, order: float) -> None:
        """Charges an event.

        Raises:
            ValueError: The order is another than at the first charge, or none.
        """
        if order not in ORDERS:
            raise ValueError(f"{order} is no order of the filter")
        if self.order not in (None, order):
            raise ValueError(f"the filter's order changed from {self.order} to {order}")
        self.order = order
        self.divergence = (self.divergence + rdp_at(event, self.order)) * ROUNDING_UP
        key = (event.noise_multiplier, event.sample_rate, event.is_private)
        self.steps[key] = self.steps.get(key, 0) + event.steps
        self.plans[plan] = self.plans.get(plan, 0) + event.steps

    @property
    def events(self) -> tuple[GaussianEvent, ...]:
        """Everything charged, equal mechanisms together."""
        return tuple(
            GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t, is_private=p)
            for (s, q, p), t in self.steps.items()
        )


def order_for(request: Request, spent: Spending, budget: Budget) -> float:
    """The filter's order: as it was fixed, or for the first request, what affords most of it."""
    if spent.order is not None:
        return spent.order
    if math.isinf(budget.epsilon) or not request.event.is_private:
        return ORDERS[0]  # no filter runs

    def affordable(order: float) -> float:
        limit = rdp_budget(budget.epsilon, budget.delta / 2, order)
        return limit / max(rdp_at(request.event, order), 1e-300)

    return max(ORDERS, key=affordable)


def fits_whole(planned: GaussianEvent, budget: Budget) -> bool:
    """Whether a plan, the only one ever run, fits from its first to its last round."""
    return epsilon([planned], budget.delta / 2) <= budget.epsilon


def fits(request: Request, spent: Spending, budget: Budget) -> bool:
    """Whether a round may be charged after what was spent.

    Guarantees:
        If every charge passed this rule, all releases together are (ε, δ)-differentially private
        with the budget's ε and δ, also where each plan and each request depends on every release
        before it.
    """
    if math.isinf(budget.epsilon):
        return True
    event, planned = request.event, request.planned
    if not event.is_private:
        return False
    alone = set(spent.plans) <= {request.plan}
    within_plan = spent.plans.get(request.plan, 0) + event.steps <= planned.steps
    if alone and within_plan and fits_whole(planned, budget):
        return True
    order = order_for(request, spent, budget)
    total = (spent.divergence + rdp_at(event, order)) * ROUNDING_UP
    return total <= rdp_budget(budget.epsilon, budget.delta / 2, order)
