"""ε is recomputed from charged rounds, and a forecast agrees with the ledger itself."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.errors import BudgetError
from cloister.ledger.budget import Budget
from cloister.ledger.history import History
from cloister.ledger.ledger import Ledger
from cloister.ledger.replay import charged_rounds, forecast
from cloister.ledger.storage import LedgerFile
from cloister.privacy.accounting import COARSE, epsilon
from cloister.privacy.plan import Plan
from tests.support.evidence import chain, key_of
from tests.support.ledgers import charge, new_ledger, reserved, run_round, small_plan


def history_of(path: Path) -> History:
    history = History()
    for entry in LedgerFile(path).entries():
        history.add(entry)
    return history


def test_rounds_are_listed_with_what_left_and_epsilon_anew(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    run_round(ledger, 1)
    reserved(ledger, 2)
    first, second = charged_rounds(LedgerFile(path).entries(), history_of(path))
    assert (first.round, second.round) == (1, 2)
    assert first.release is not None
    assert first.release.bytes == len(b"bytes 1")
    assert second.release is None
    one = small_plan().event(5)
    assert first.epsilon_pld == epsilon([one], 1e-5, COARSE)
    assert second.epsilon_pld == epsilon([replace(one, steps=10)], 1e-5, COARSE)
    assert second.epsilon_rdp is not None
    assert second.epsilon_rdp > second.epsilon_pld


def test_what_a_ledger_states_on_the_way_is_not_repeated() -> None:
    entries = chain(key_of(0), [("study", r, small_plan(), True) for r in (1, 2)])
    history = History()
    for entry in entries:
        history.add(entry)
    assert all(c.epsilon_pld != 0.0 for c in charged_rounds(entries, history))


def test_of_long_ledgers_some_rounds_are_recomputed_the_last_among_them() -> None:
    plan = small_plan(num_rounds=50)
    entries = chain(key_of(0), [("study", r, plan, True) for r in range(1, 11)])
    history = History()
    for entry in entries:
        history.add(entry)
    found = [c.epsilon_pld is not None for c in charged_rounds(entries, history, most=3)]
    assert found[-1]
    assert 2 <= sum(found) <= 4


def affords(ledger: Ledger, plan: Plan, first: int) -> int:
    """Rounds that a ledger lets pass until its budget refuses."""
    for number in range(first, first + 200):
        try:
            ledger.reserve(charge(number, plan))
        except BudgetError:
            return number - first
    raise AssertionError("no end")


@pytest.mark.parametrize("num_rounds", [4, 40])
@pytest.mark.parametrize("limit", [3.5, 6.0])
def test_the_forecast_is_what_the_ledger_then_affords(
    tmp_path: Path, limit: float, num_rounds: int
) -> None:
    """Within the plan, and beyond it up to the steps that were fixed at the first charge."""
    path, plan = tmp_path / "site.ledger", small_plan(num_rounds=num_rounds)
    ledger = new_ledger(path, Budget(epsilon=limit, delta=2e-5))
    run_round(ledger, 1, plan)
    ahead = forecast(history_of(path))
    assert ahead is not None
    assert ahead.rounds == affords(ledger, plan, 2)
    assert ahead.curve[-1][0] == ahead.rounds
    # At the δ at which the rule compares them, what the forecast ends with is within the cap.
    assert ahead.delta == 1e-5
    assert ahead.curve[-1][1] <= limit + 5 * COARSE


def test_a_forecast_without_limit_or_charge(tmp_path: Path) -> None:
    path = tmp_path / "open.ledger"
    ledger = new_ledger(path, Budget(epsilon=math.inf, delta=2e-5))
    assert forecast(history_of(path)) is None
    run_round(ledger, 1)
    ahead = forecast(history_of(path))
    assert ahead is not None
    assert ahead.rounds is None
