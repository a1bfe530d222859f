"""Every ε has its terms, with one spelling as text and one as JSON."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.ledger.budget import Budget
from cloister.ledger.history import History
from cloister.ledger.stated import (
    Basis,
    Stated,
    limit_shown,
    of_budget,
    of_budget_used,
    of_events,
    of_plan,
    of_plan_alone,
    promise,
    promised_events,
    shown,
    spent,
    used,
)
from cloister.ledger.storage import LedgerFile
from cloister.privacy.units import Unit
from tests.support.ledgers import charge, new_ledger, run_round, shared_plan, small_plan

PLAN = small_plan()
BUDGET = Budget(epsilon=8.0, delta=2e-5)
FIGURES: dict[str, Callable[[], Stated]] = {
    "a plan": lambda: of_plan(PLAN),
    "a shared plan": lambda: of_plan(shared_plan()),
    "a plan against all others": lambda: of_plan_alone(shared_plan()),
    "a budget": lambda: of_budget(BUDGET, Unit.PERSON, [PLAN]),
    "what ran": lambda: of_events([PLAN.event(5)], 1e-5, [PLAN], Unit.RECORD),
    "nothing private": lambda: of_plan(PLAN, is_private=False),
}


@given(st.floats(0.0, 1e6), st.integers(0, 6))
def test_no_epsilon_is_shown_as_less_than_it_is(value: float, digits: int) -> None:
    text = shown(value, digits)
    assert value <= float(text) <= value + 1.001 * 10.0**-digits
    assert len(text.partition(".")[2]) == digits


def test_an_epsilon_that_fits_is_shown_as_it_is() -> None:
    assert [shown(0.3, 1), shown(8.0, 2), shown(7.9995), shown(7.99951), shown(0.0)] == [
        "0.3",
        "8.00",
        "7.9995",
        "7.9996",
        "0.0000",
    ]
    assert shown(None) == shown(math.inf) == "∞"


@pytest.mark.parametrize("made", FIGURES.values(), ids=FIGURES.keys())
def test_a_text_says_all_of_it_and_json_is_read_back(made: Callable[[], Stated]) -> None:
    figure = made()
    text = str(figure)
    for part in (
        f"δ = {figure.delta:g}",
        f"one {figure.unit} added or removed",
        figure.against,
        shown(figure.epsilon),
    ):
        assert part in text
    assert ("promised" in text) is figure.is_promise
    assert ("not a promise" in text) is not figure.is_promise
    document = figure.to_json()
    assert set(document) == {
        "epsilon",
        "delta",
        "unit",
        "neighbouring",
        "accountant",
        "adversaries",
        "basis",
        "is_promise",
    }
    assert (document["epsilon"] is None) is math.isinf(figure.epsilon)
    assert Stated.from_json(document) == figure


def history_of(path: Path) -> History:
    history = History()
    for entry in LedgerFile(path).entries():
        history.add(entry)
    return history


def test_a_promise_is_the_same_from_the_first_round_to_the_last(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    assert ledger.promise.basis is Basis.LIFETIME_BUDGET  # nothing is committed to yet
    seen = []
    for number in range(1, 5):
        run_round(ledger, number)
        seen.append((ledger.promise, ledger.spent.epsilon))
    assert {promised for promised, _ in seen} == {of_plan(PLAN)}
    assert [ran for _, ran in seen] == [PLAN.epsilon_after(number) for number in range(1, 5)]
    assert promised_events(history_of(path)) == (PLAN.event(20),)
    ledger.reserve(charge(1, small_plan(num_rounds=2), study="later"))
    assert ledger.promise == of_budget(Budget(epsilon=50.0, delta=2e-5), Unit.RECORD, [PLAN])
    assert promised_events(history_of(path)) == ()


def test_what_is_spent_compares_at_one_delta(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    plan = replace(PLAN, delta=1e-6)
    ledger = new_ledger(path, BUDGET)
    run_round(ledger, 1, plan)
    history = history_of(path)
    assert spent(history).delta == promise(history).delta == 1e-6  # beside the plan's promise
    assert used(history).delta == BUDGET.delta / 2  # beside the budget
    text = of_budget_used(used(history), BUDGET)
    assert "of the budget's 8, both at δ = 1e-05" in text
    assert shown(spent(history).epsilon) not in text
    assert [limit_shown(limit) for limit in (8.0, 0.5, 7.99831)] == ["8", "0.5", "7.9984"]
    assert "no limit" in of_budget_used(used(history), Budget(epsilon=math.inf, delta=2e-5))
