"""A data set's lifetime budget, and the rule that decides whether a release fits. No disk access.

Math:
    The budget's δ is split into two halves, one for each way in which a charge may fit:

    1. The first charge fixes, before anything is released, a list: how many steps of which kind (σ,
       q, unit, sharing: a `StepKind`) may be taken. If its plan has one kind of step, that is T,
       the most steps of that kind whose PLD is within (ε, δ/2). If its plan lists releases of
       several kinds, it is that list, if its PLD is within (ε, δ/2). As long as no other kind is
       charged, and of each kind no more than listed, every charge fits.
    2. Everything else goes through a Rényi filter (Feldman & Zrnic 2021, arXiv:2008.11193, theorem
       4.5): divergences at one order, fixed at the first charge, may add up to the value that
       converts to (ε, δ/2). The order is the one at which the budget allows the most rounds like
       the first.

    Together they hold for any adaptive choice. Let A be the transcripts in which every charge fits
    by way 1, B all others, and S any set of transcripts. (A) Whatever was released before, each
    step of one kind has one dominating pair (P, Q), so T steps are dominated by its T-fold product,
    also where clip bounds, adapters and the number of rounds of each plan follow from earlier
    releases (Zhu, Dong & Wang 2022, arXiv:2106.08567, theorem 10). The same holds for a list, in
    any order, also one that follows from earlier releases: a step is a randomised function of one
    draw from its kind's pair and of the transcript so far, and all listed draws could be made
    before the first step. A run that stops earlier, for any reason, reveals a part of what the
    whole list reveals: post-processing. So P(S ∩ A) ≤ e^ε P′(S ∩ A) + δ/2. (B) Ways 1 and 2 are
    monotone: once a charge does not fit by way 1, no later one does, and the filter's sum only
    grows. So at the last charge of B the filter covers all charges, also the first ones, and the
    filter's theorem gives P(S ∩ B) ≤ e^ε P′(S ∩ B) + δ/2. A and B are disjoint: add both.

    The PLD of the steps that were taken, at the plan's δ, is *not* a guarantee if the number of
    steps depended on what was released (an odometer reading). Its true δ is more than 5 times the
    stated one in three settings (tests/ledger/test_odometer.py). So the promise is that of a whole
    plan or of the budget (`ledger.stated`), and the ε spent so far is an indication.

    In older ledgers the first charge states no T. There one plan alone may run if the PLD of the
    whole plan is within (ε, δ/2); everything else goes through the filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cloister.errors import RefusedError, UsageError
from cloister.ledger.planned_round import Listed, PlannedRound, StepKind
from cloister.privacy.accounting import (
    COARSE,
    FINE,
    SMALLEST_DELTA,
    epsilon,
    rdp_at,
    rdp_budget,
    rdp_epsilon,
)
from cloister.privacy.events import GaussianEvent

# Why a study cannot run in which this rule refuses every site's first round.
NO_ROUND_FITS = (
    "no site's budget covers one round of this study: raise the sites' budgets (in a simulation "
    "privacy.site_budgets), or plan rounds that cost less (more noise, smaller batches)"
)
# A sum of n rounded divergences is at most this factor times n below the exact one (float64).
ROUNDING_UP = 1 + 2**-50

# Two machines may compute an ε that differs by rounding; far below the digits that are shown.
MACHINES_DIFFER = 1e-6

# Orders that the filter chooses from: dense where subsampled mechanisms of ε = 0.5…20 end (1.5…12).
ORDERS = (
    1.25,
    1.5,
    1.75,
    2.0,
    2.25,
    2.5,
    2.75,
    3.0,
    3.5,
    4.0,
    4.5,
    5.0,
    5.5,
    6.0,
    7.0,
    8.0,
    10.0,
    12.0,
    14.0,
    16.0,
    20.0,
    24.0,
    32.0,
    48.0,
    64.0,
    128.0,
)

# T is searched up to this many steps, ten times what studies take: PLDs of more steps take seconds.
# A longer whole plan that fits still runs.
MOST_SEARCHED = 100_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that all releases from one data set together may cost, over its lifetime.

    Attributes:
        epsilon: ε; ∞ without protection (simulations without privacy).
        delta: δ.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise UsageError(f"budget.epsilon: {self.epsilon} given; more than 0 is needed")
        if not 2 * SMALLEST_DELTA <= self.delta < 1:  # each way to fit gets half of it
            raise UsageError(
                f"budget.delta: {self.delta} given; from {2 * SMALLEST_DELTA:g} to 1 is needed"
            )


@dataclass(frozen=True)
class FirstCharge:
    """The terms that the first charge fixes for the data set's lifetime.

    Attributes:
        order: The order of the Rényi filter.
        most_steps: T: steps of the first charge's kind that fit while nothing else is charged; of a
            plan with several kinds, the number of all of its steps, or 0 if they do not fit. None:
            an older ledger's rule holds, or the budget has no limit.
        listed: Of a first plan with several kinds of steps, the number of each kind; empty where
            all steps are of one kind.
    """

    order: float
    most_steps: int | None
    listed: Listed = ()


@dataclass
class Spending:
    """The sum of all charges so far; it only grows.

    Attributes:
        terms: The terms of the first charge; None before it.
        divergence: Sum of divergences at the filter's order, never below the exact sum.
        steps: Steps by (noise multiplier, sample rate, is private).
        plans: Steps by plan.
        by_kind: Steps by kind.
    """

    terms: FirstCharge | None = None
    divergence: float = 0.0
    steps: dict[tuple[float, float, bool], int] = field(default_factory=dict)
    plans: dict[str, int] = field(default_factory=dict)
    by_kind: dict[StepKind, int] = field(default_factory=dict)

    def add(self, request: PlannedRound, terms: FirstCharge) -> None:
        """Adds a charged round to the sums, under the terms of the first charge.

        Raises:
            ValueError: The terms differ from the first charge's, or are invalid.
        """
        if terms.order not in ORDERS:
            raise ValueError(f"{terms.order} is not an order of the filter")
        if terms.most_steps is not None and terms.most_steps < 0:
            raise ValueError(f"{terms.most_steps} steps: from 0 up is needed")
        if self.terms not in (None, terms):
            raise ValueError(f"the budget's terms changed from {self.terms} to {terms}")
        event, self.terms = request.event, terms
        self.divergence = (self.divergence + rdp_at(event, terms.order)) * ROUNDING_UP
        key = (event.noise_multiplier, event.sample_rate, event.is_private)
        self.steps[key] = self.steps.get(key, 0) + event.steps
        self.plans[request.plan] = self.plans.get(request.plan, 0) + event.steps
        self.by_kind[request.kind] = self.by_kind.get(request.kind, 0) + event.steps

    @property
    def total_steps(self) -> int:
        """The number of noisy steps charged in all."""
        return sum(self.plans.values())

    @property
    def events(self) -> tuple[GaussianEvent, ...]:
        """All charged events; equal mechanisms are joined into one."""
        return tuple(
            GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t, is_private=p)
            for (s, q, p), t in self.steps.items()
        )


def rounded_up(budget: Budget) -> Budget:
    """Returns the budget, raised by another machine's rounding error, since a plan may use exactly
    all of it."""
    return replace(budget, epsilon=budget.epsilon + MACHINES_DIFFER)


def terms_for(request: PlannedRound, spent: Spending, budget: Budget) -> FirstCharge:
    """Returns the terms that the first charge fixed, or that the first request will fix."""
    if spent.terms is not None:
        return spent.terms
    if math.isinf(budget.epsilon) or not request.kind.is_private:
        return FirstCharge(ORDERS[0], None)  # the rule is not used
    listed = several(request)
    priced = request.planned if listed else (request.event,)

    def affordable(order: float) -> float:
        limit = rdp_budget(budget.epsilon, budget.delta / 2, order)
        return limit / max(sum(rdp_at(event, order) for event in priced), 1e-300)

    return FirstCharge(max(ORDERS, key=affordable), most_steps(request, budget), listed)


def several(request: PlannedRound) -> Listed:
    """Returns the list of a plan with several kinds of steps; empty where all are of one kind."""
    return request.listed if len(request.listed) > 1 else ()


@lru_cache(maxsize=256)
def most_steps(request: PlannedRound, budget: Budget) -> int:
    """Returns T: the most steps of a request's kind whose PLD is within the budget's ε at half its
    δ.

    Returns:
        The whole plan's steps if they fit; more, up to `MOST_SEARCHED`, if more fit on the coarse
        grid, which also bounds ε from above; 0 if no step fits. Of a plan with several kinds of
        steps its own number, or 0 if the whole list does not fit.
    """
    if several(request):
        return request.planned_steps if fits_whole(request.planned, budget) else 0
    kind = request.kind
    below = request.planned_steps if fits_whole(request.planned, budget) else 0
    if below >= MOST_SEARCHED or not _fits(kind, below + 1, budget, COARSE):
        return below
    below = max(below + 1, _most_by_renyi(kind, budget))
    if not _fits(kind, below, budget, COARSE):  # the grid is so coarse that PLD is above RDP
        return request.planned_steps if fits_whole(request.planned, budget) else 1
    step = max(below // 8, 1)  # on most plans PLD allows a tenth to a third more steps than RDP
    while below < MOST_SEARCHED and _fits(kind, min(below + step, MOST_SEARCHED), budget, COARSE):
        below, step = min(below + step, MOST_SEARCHED), 2 * step
    above = min(below + step, MOST_SEARCHED + 1)
    while above - below > 1:
        midpoint = (below + above) // 2
        if _fits(kind, midpoint, budget, COARSE):
            below = midpoint
        else:
            above = midpoint
    return below


def _fits(kind: StepKind, steps: int, budget: Budget, grid: float) -> bool:
    try:
        return epsilon([kind.event(steps)], budget.delta / 2, grid) <= budget.epsilon
    except RefusedError:
        return False  # no guarantee if accountants disagree


def _most_by_renyi(kind: StepKind, budget: Budget) -> int:
    """Steps that fit by Rényi DP; it is fast, and its ε is not below PLD's, so the search starts
    there."""
    below, above = 0, MOST_SEARCHED + 1
    while above - below > 1:
        midpoint = (below + above) // 2
        if rdp_epsilon([kind.event(midpoint)], budget.delta / 2) <= budget.epsilon:
            below = midpoint
        else:
            above = midpoint
    return below


def fits_whole(planned: Sequence[GaussianEvent], budget: Budget) -> bool:
    """Whether a whole plan's releases fit into a budget that nothing else uses."""
    return epsilon(planned, budget.delta / 2) <= budget.epsilon


def is_within(first: PlannedRound, terms: FirstCharge, budget: Budget) -> bool:
    """Whether the terms that a ledger's first charge states are within the budget."""
    if terms.most_steps is None or math.isinf(budget.epsilon):
        return True
    if terms.listed:
        fits = terms.most_steps == first.planned_steps and fits_whole(first.planned, budget)
        return fits or terms.most_steps == 0
    if terms.most_steps > max(MOST_SEARCHED, first.planned_steps):
        return False  # no valid first charge fixes more, and their PLDs take too long
    return any(_fits(first.kind, terms.most_steps, budget, grid) for grid in (COARSE, FINE))


def fits(request: PlannedRound, spent: Spending, budget: Budget, terms: FirstCharge) -> bool:
    """Whether a round may be charged after what was spent.

    Args:
        request: The round.
        spent: What was charged before.
        budget: The data set's lifetime budget.
        terms: From `terms_for`, or as the ledger's first charge states them.

    Guarantees:
        If every charge passed this rule under terms that are `is_within` the budget, all releases
        together are (ε, δ)-differentially private with the budget's ε and δ, even if each plan and
        request depends on all releases before it.
    """
    if math.isinf(budget.epsilon):
        return True
    if not request.kind.is_private:
        return False
    if _fits_as_one(request, spent, budget, terms):
        return True
    total = (spent.divergence + rdp_at(request.event, terms.order)) * ROUNDING_UP
    return total <= rdp_budget(budget.epsilon, budget.delta / 2, terms.order)


def _fits_as_one(
    request: PlannedRound, spent: Spending, budget: Budget, terms: FirstCharge
) -> bool:
    """Way 1: all steps are of the kinds that the first charge fixed, and at most as many."""
    if terms.listed:
        # All kinds are compared: once the filter took a step beyond the list, way 1 is over.
        limits = dict(terms.listed) if terms.most_steps else {}
        taken = {**spent.by_kind, request.kind: spent.by_kind.get(request.kind, 0) + request.steps}
        return all(steps <= limits.get(kind, -1) for kind, steps in taken.items())
    if terms.most_steps is not None:
        alike = spent.by_kind.keys() <= {request.kind}
        return alike and spent.total_steps + request.steps <= terms.most_steps
    if several(request):
        return False  # an older ledger has no such plan, and its rule does not count each kind
    alone = set(spent.plans) <= {request.plan}
    within = spent.plans.get(request.plan, 0) + request.steps <= request.planned_steps
    return alone and within and fits_whole(request.planned, budget)


def steps_left(request: PlannedRound, spent: Spending, budget: Budget) -> int | None:
    """How many more steps of a request's kind fit; None if the budget has no limit.

    Under an older ledger's terms way 1 ends with the request's own plan.
    """
    if math.isinf(budget.epsilon):
        return None
    terms = terms_for(request, spent, budget)
    price = rdp_at(request.kind.event(1), terms.order)
    left, limit = 0, rdp_budget(budget.epsilon, budget.delta / 2, terms.order)
    if math.isfinite(spent.divergence) and 0 < price < math.inf:
        left = max(0, math.floor((limit - spent.divergence) / price))
    if _fits_as_one(request, spent, budget, terms):
        left = max(left, _left_as_one(request, spent, terms))
    return left


def _left_as_one(request: PlannedRound, spent: Spending, terms: FirstCharge) -> int:
    """Steps of a request's kind that are left by way 1, by which the request fits."""
    if terms.listed:
        return dict(terms.listed)[request.kind] - spent.by_kind.get(request.kind, 0)
    if terms.most_steps is None:
        return request.planned_steps - spent.plans.get(request.plan, 0)
    return terms.most_steps - spent.total_steps
