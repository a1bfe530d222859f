"""A plan's releases are a list fixed in advance: one ε for the list, and each kind is counted."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.ledger.budget import (
    Budget,
    FirstCharge,
    Spending,
    fits,
    is_within,
    steps_left,
    terms_for,
)
from cloister.ledger.history import request_of
from cloister.ledger.planned_round import PlannedRound
from cloister.ledger.stated import are_among, of_plan
from cloister.privacy.accounting import epsilon, rdp_budget
from tests.support.examples import tries
from tests.support.ledgers import small_plan

PLAN = small_plan()
TRAINING = request_of(PLAN)
SCORED = replace(TRAINING.kind, noise_multiplier=4.0, sample_rate=1.0)
LISTED = ((TRAINING.kind, 20), (SCORED, 3))
ROUND = replace(TRAINING, listed=LISTED)
SCORE = PlannedRound(plan=ROUND.plan, kind=SCORED, steps=1, listed=LISTED)
OTHER = request_of(small_plan(1.1))
COST = epsilon(ROUND.planned, 1e-5)
EXACT = Budget(epsilon=COST + 1e-9, delta=2e-5)


def charged(requests: list[PlannedRound], budget: Budget) -> tuple[Spending, int]:
    """Charges one request after the other; returns the sums and how many fit."""
    spent, taken = Spending(), 0
    for request in requests:
        terms = terms_for(request, spent, budget)
        if fits(request, spent, budget, terms):
            spent.add(request, terms)
            taken += 1
    return spent, taken


def test_today_s_plan_is_the_list_of_its_equal_rounds() -> None:
    assert PLAN.releases == (PLAN.event(20),)
    assert of_plan(PLAN).epsilon == PLAN.epsilon_after(4) == epsilon(PLAN.releases, 1e-5)
    assert (TRAINING.planned_steps, TRAINING.planned) == (20, PLAN.releases)


@pytest.mark.parametrize(
    "order",
    [[ROUND] * 4 + [SCORE] * 3, [SCORE] * 3 + [ROUND] * 4, [ROUND, SCORE] * 3 + [ROUND]],
)
def test_a_whole_list_fits_in_any_order_where_a_filter_would_end_it(
    order: list[PlannedRound],
) -> None:
    spent, taken = charged(order, EXACT)
    assert taken == 7
    assert epsilon(spent.events, 1e-5) == COST
    alone = Spending()
    terms = FirstCharge(terms_for(order[0], Spending(), EXACT).order, 0)
    within = 0
    for request in order:
        if fits(request, alone, EXACT, terms):
            alone.add(request, terms)
            within += 1
    assert within < 7


@settings(max_examples=tries(60), deadline=None)
@given(st.lists(st.sampled_from([ROUND, SCORE, OTHER]), max_size=14))
@example([SCORE, *[OTHER] * 40])
def test_a_step_beyond_the_list_leaves_all_to_the_filter(order: list[PlannedRound]) -> None:
    spent, _ = charged(order, EXACT)
    limits = dict(LISTED)
    if all(steps <= limits.get(kind, 0) for kind, steps in spent.by_kind.items()):
        assert epsilon(spent.events, 1e-5) <= EXACT.epsilon
    else:
        assert spent.terms is not None
        assert spent.divergence <= rdp_budget(EXACT.epsilon, 1e-5, spent.terms.order)


def test_a_list_is_over_once_the_filter_took_more_of_one_kind() -> None:
    # The filter takes the fourth score; then it alone decides, so not all rounds fit any more.
    spent, taken = charged([SCORE] * 4 + [ROUND] * 4, EXACT)
    assert spent.by_kind[SCORED] == 4
    assert taken < 8


def test_any_other_kind_ends_the_list_for_the_data_set_s_life() -> None:
    wide = Budget(epsilon=2 * COST, delta=2e-5)
    spent, taken = charged([SCORE, OTHER], wide)
    terms = spent.terms
    assert (taken, terms.most_steps if terms else None) == (2, 23)
    assert spent.divergence > 0
    assert charged([SCORE, OTHER] + [ROUND] * 40, wide)[1] < 42


@pytest.mark.parametrize("request_", [ROUND, SCORE])
def test_a_list_without_stated_terms_is_left_to_the_filter(request_: PlannedRound) -> None:
    """The rule of older ledgers counts steps of all kinds together: 23 of the costlier kind."""
    terms = FirstCharge(terms_for(ROUND, Spending(), EXACT).order, None)
    spent = Spending()
    for _ in range(23):
        if fits(request_, spent, EXACT, terms):
            spent.add(request_, terms)
    assert spent.divergence <= rdp_budget(EXACT.epsilon, 1e-5, terms.order)
    assert epsilon(spent.events, 1e-5) <= EXACT.epsilon


def test_the_rest_of_a_list_is_counted_by_kind() -> None:
    spent, _ = charged([ROUND, SCORE], EXACT)
    assert steps_left(ROUND, spent, EXACT) == 15
    assert steps_left(SCORE, spent, EXACT) == 5  # by the filter; 2 by the list


def test_a_list_that_does_not_fit_fixes_nothing_and_false_terms_are_found() -> None:
    small = Budget(epsilon=COST - 0.01, delta=2e-5)
    terms = terms_for(ROUND, Spending(), small)
    assert (terms.most_steps, terms.listed) == (0, LISTED)
    assert is_within(ROUND, terms, small)
    for most in (23, 22, 24):
        assert is_within(ROUND, replace(terms, most_steps=most), EXACT) == (most == 23)
        assert not is_within(ROUND, replace(terms, most_steps=most), small)


def test_a_list_holds_what_was_taken_of_it_only() -> None:
    few = (replace(PLAN.event(3)), replace(PLAN.event(4), is_private=False))
    assert are_among(few, [PLAN.event(7)])
    assert not are_among(few, [PLAN.event(6)])
    assert not are_among([small_plan(1.1).event(1)], PLAN.releases)
