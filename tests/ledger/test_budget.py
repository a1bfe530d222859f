"""The budget's rule agrees with slow twins on fixed steps and on what still fits."""

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.ledger.budget import (
    MOST_SEARCHED,
    ORDERS,
    Budget,
    FirstCharge,
    Spending,
    fits,
    fits_whole,
    is_within,
    most_steps,
    steps_left,
    terms_for,
)
from cloister.ledger.history import request_of
from cloister.ledger.planned_round import PlannedRound
from cloister.privacy.accounting import COARSE, epsilon, rdp_at, rdp_budget
from cloister.privacy.plan import Plan
from tests.support.examples import tries
from tests.support.ledgers import shared_plan, small_plan

BASE = small_plan()
# Of one kind: they differ in rounds, in steps a round, in the clip bound, and in δ.
ALIKE = [
    BASE,
    small_plan(num_rounds=9),
    replace(BASE, local_steps=3),
    replace(BASE, max_grad_norm=0.5),
    replace(BASE, delta=1e-6),
]
# Of other kinds: by σ, q, records of a unit, or whose noise it is.
OTHERS = [
    small_plan(1.1),
    replace(BASE, expected_batch_size=11),
    replace(BASE, max_records=2),
    shared_plan(),
]


def slow_most_steps(request: PlannedRound, budget: Budget) -> int:
    """The largest number of steps that fits, one by one."""
    found = request.planned_steps if fits_whole(request.planned, budget) else 0
    while epsilon([request.kind.event(found + 1)], budget.delta / 2, COARSE) <= budget.epsilon:
        found += 1
    return found


@pytest.mark.parametrize("limit", [0.5, 2.5, pytest.param(4.0, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("plan", [BASE, small_plan(1.6), small_plan(0.7, num_rounds=1)])
def test_as_many_steps_are_fixed_as_fit(plan: Plan, limit: float) -> None:
    request, budget = request_of(plan), Budget(epsilon=limit, delta=2e-5)
    found = most_steps(request, budget)
    assert found == slow_most_steps(request, budget)
    assert is_within(request, FirstCharge(2.0, found), budget)
    assert not is_within(request, FirstCharge(2.0, found + 2), budget)


def test_a_plan_that_fits_exactly_is_fixed_whole() -> None:
    """A simulation's budget is its plan's cost on the fine grid, where the coarse one is above."""
    budget = Budget(epsilon=BASE.epsilon_after(4), delta=2 * BASE.delta)
    assert most_steps(request_of(BASE), budget) == 20


def test_no_more_is_searched_for_than_a_study_takes() -> None:
    request = request_of(small_plan(200.0))
    budget = Budget(epsilon=50.0, delta=2e-5)
    assert most_steps(request, budget) == MOST_SEARCHED
    assert not is_within(request, FirstCharge(2.0, MOST_SEARCHED + 1), budget)


@dataclass
class Twin:
    """The rule, written down again: all charges are looked at anew each time."""

    budget: Budget
    charged: list[PlannedRound] = field(default_factory=list)

    def takes(self, new: PlannedRound) -> bool:
        every = [*self.charged, new]
        half, limit = self.budget.delta / 2, self.budget.epsilon
        first = every[0]
        order = max(
            ORDERS, key=lambda o: rdp_budget(limit, half, o) / max(rdp_at(first.event, o), 1e-300)
        )
        steps = sum(request.steps for request in every)
        kinds = {request.kind for request in every}
        as_one = len(kinds) == 1 and steps <= most_steps(first, self.budget)
        total = math.fsum(rdp_at(request.event, order) for request in every)
        return as_one or total <= rdp_budget(limit, half, order) * (1 - 1e-12)


@settings(max_examples=tries(60), deadline=None)
@given(
    limit=st.sampled_from([2.6, 4.5]),
    asked=st.lists(st.sampled_from([*ALIKE] * 3 + OTHERS), min_size=1, max_size=14),
)
def test_the_rule_is_its_slow_twin_s_and_keeps_the_budget(limit: float, asked: list[Plan]) -> None:
    budget, spent = Budget(epsilon=limit, delta=2e-5), Spending()
    twin = Twin(budget)
    for plan in asked:
        request = request_of(plan)
        terms = terms_for(request, spent, budget)
        taken = fits(request, spent, budget, terms)
        assert taken == twin.takes(request)
        left = steps_left(request, spent, budget)
        assert left is not None
        assert (left >= request.steps) == taken
        if taken:
            spent.add(request, terms)
            twin.charged.append(request)
    # Whatever was chosen, what was taken is within the budget by an accountant of its own.
    assert epsilon(spent.events, budget.delta / 2, COARSE) <= budget.epsilon + 5e-3
    if len(spent.by_kind) > 1:  # from the first other event on, the filter alone decided
        assert spent.terms is not None
        assert spent.divergence <= rdp_budget(limit, 1e-5, spent.terms.order)


@pytest.mark.parametrize("other", OTHERS)
def test_any_other_event_ends_it_for_the_data_set_s_life(other: Plan) -> None:
    budget, spent = Budget(epsilon=4.5, delta=2e-5), Spending()
    for plan in (BASE, other):
        request = request_of(plan)
        spent.add(request, terms_for(request, spent, budget))
    request = request_of(BASE)
    terms = terms_for(request, spent, budget)
    assert terms.most_steps is not None
    rounds = 0
    while fits(request, spent, budget, terms):
        spent.add(request, terms)
        rounds += 1
    assert spent.divergence <= rdp_budget(4.5, 1e-5, terms.order)
    assert spent.total_steps < terms.most_steps  # alone it would have gone on


def test_plans_that_differ_in_rounds_alone_stay_together_where_a_filter_would_have_ended_them() -> (
    None
):
    budget, spent = Budget(epsilon=4.5, delta=2e-5), Spending()
    filtered = Spending()
    short, longer = request_of(small_plan(num_rounds=2)), request_of(small_plan(num_rounds=50))
    terms = terms_for(short, spent, budget)
    taken = {"together": 0, "filter": 0}
    for number in range(20):
        request = short if number < 1 else longer
        if fits(request, spent, budget, terms):
            spent.add(request, terms)
            taken["together"] += 1
        old = FirstCharge(terms.order, None)
        if fits(request, filtered, budget, old):
            filtered.add(request, old)
            taken["filter"] += 1
    assert taken["together"] > taken["filter"] > 1


def as_it_was(request: PlannedRound, spent: Spending, budget: Budget, order: float) -> bool:
    """The rule of ledgers that fix no number of steps, as it stood when they were written."""
    alone = set(spent.plans) <= {request.plan}
    within_plan = spent.plans.get(request.plan, 0) + request.steps <= request.planned_steps
    if alone and within_plan and fits_whole(request.planned, budget):
        return True
    total = (spent.divergence + rdp_at(request.event, order)) * (1 + 2**-50)
    return total <= rdp_budget(budget.epsilon, budget.delta / 2, order)


@settings(max_examples=tries(40), deadline=None)
@given(
    limit=st.sampled_from([2.6, 4.5]),
    asked=st.lists(st.sampled_from([*ALIKE, *OTHERS]), min_size=1, max_size=12),
)
def test_older_ledgers_are_charged_by_their_own_rule(limit: float, asked: list[Plan]) -> None:
    budget, spent = Budget(epsilon=limit, delta=2e-5), Spending()
    terms = FirstCharge(terms_for(request_of(asked[0]), spent, budget).order, None)
    for plan in asked:
        request = request_of(plan)
        assert fits(request, spent, budget, terms) == as_it_was(request, spent, budget, terms.order)
        if fits(request, spent, budget, terms):
            spent.add(request, terms)


@pytest.mark.parametrize("is_older", [False, True])
def test_a_plan_that_uses_the_whole_budget_ends_with_its_last_round(is_older: bool) -> None:
    """By every rule its steps are counted: a filter alone would have ended it before."""
    budget, spent = Budget(epsilon=BASE.epsilon_after(BASE.num_rounds), delta=2e-5), Spending()
    request = request_of(BASE)
    terms = terms_for(request, spent, budget)
    if is_older:
        terms = FirstCharge(terms.order, None)
    for _ in range(BASE.num_rounds):
        assert fits(request, spent, budget, terms)
        spent.add(request, terms)
    assert not fits(request, spent, budget, terms)


def test_terms_never_change() -> None:
    spent = Spending()
    spent.add(request_of(BASE), FirstCharge(2.0, 20))
    for other in (FirstCharge(3.0, 20), FirstCharge(2.0, 21), FirstCharge(2.0, None)):
        with pytest.raises(ValueError, match="terms changed"):
            spent.add(request_of(BASE), other)
    with pytest.raises(ValueError, match="order"):
        Spending().add(request_of(BASE), FirstCharge(1.0, 20))
    with pytest.raises(ValueError, match="from 0 up"):
        Spending().add(request_of(BASE), FirstCharge(2.0, -1))
