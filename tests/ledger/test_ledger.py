"""A ledger charges before a release, releases once, and has one budget for life."""

import dataclasses
import math
import multiprocessing
from pathlib import Path

import pytest

from cloister.errors import BudgetError, LedgerError, RefusedError, RoundSpentError, UsageError
from cloister.ledger.budget import Budget
from cloister.ledger.charge import Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.ledger.stated import Basis
from cloister.ledger.storage import LedgerFile
from cloister.privacy.accounting import epsilon
from cloister.privacy.units import Unit
from tests.support.ledgers import (
    WIDE,
    charge,
    new_ledger,
    odometer,
    reserved,
    run_round,
    small_plan,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "site.ledger"


def test_what_is_charged_is_read_back(path: Path) -> None:
    ledger = new_ledger(path)
    assert odometer(ledger, 1e-5) == 0.0
    run_round(ledger, 1)
    reserved(ledger, 2)
    again = Ledger(path)
    assert again.head == ledger.head
    assert again.steps == 10
    assert odometer(again, 1e-5) == small_plan().epsilon_after(2)


def test_a_ledger_is_begun_once_and_under_one_key(path: Path) -> None:
    new_ledger(path)
    with pytest.raises(LedgerError, match="exists already"):
        new_ledger(path)
    new_ledger(path.parent / "other")
    with pytest.raises(LedgerError, match="was made with another key"):
        Ledger(path, key=path.parent / "other.key")
    path.with_name(path.name + ".key").unlink()
    with pytest.raises(LedgerError, match="key cannot be read"):
        Ledger(path)


def test_what_a_crash_left_before_the_first_entry_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert not LedgerFile(path).is_begun
    run_round(new_ledger(path), 1)
    assert LedgerFile(path).is_begun
    path.with_name(path.name + ".head").unlink()
    assert LedgerFile(path).is_begun
    with pytest.raises(LedgerError, match="exists already"):
        new_ledger(path)


def test_a_missing_ledger_is_not_a_new_one(path: Path) -> None:
    new_ledger(path)
    path.unlink()
    with pytest.raises(LedgerError, match="no ledger here; what was spent is unknown"):
        Ledger(path)
    with pytest.raises(LedgerError, match="exists already"):  # its head remembers
        new_ledger(path)


def test_the_same_round_gives_the_same_bytes_and_costs_nothing(path: Path) -> None:
    first = run_round(new_ledger(path), 1)
    ledger = Ledger(path)
    head = ledger.head
    again = ledger.reserve(charge(1))
    assert isinstance(again, Released)
    assert again.payload == first.payload
    assert ledger.head == head


@pytest.mark.parametrize("change", [{"request": "another"}, {"plan": small_plan(2.0)}])
def test_the_same_round_with_anything_changed_is_refused(
    path: Path, change: dict[str, object]
) -> None:
    ledger = new_ledger(path)
    run_round(ledger, 1)
    with pytest.raises(RefusedError, match="asked before with another"):
        ledger.reserve(dataclasses.replace(charge(1), **change))  # type: ignore[arg-type]
    assert ledger.steps == 5


def test_a_round_that_was_cut_off_stays_spent(path: Path) -> None:
    reserved(new_ledger(path), 1)
    ledger = Ledger(path)
    with pytest.raises(RoundSpentError, match="stays spent"):
        ledger.reserve(charge(1))
    assert ledger.steps == 5
    run_round(ledger, 2)
    assert ledger.steps == 10


def test_a_release_does_not_tell_how_long_its_round_took(tmp_path: Path) -> None:
    """A ledger goes to auditors and into bundles; a round's time follows from the records."""
    times = iter(["begun", "charged", "an hour later", "later still"])
    ledger = Ledger.create(tmp_path / "l", WIDE, Unit.RECORD, clock=lambda: next(times))
    run_round(ledger, 1)
    said = [entry.fields["time"] for entry in LedgerFile(tmp_path / "l").entries()]
    assert said == ["begun", "charged", "charged"]


def test_a_reservation_releases_once(path: Path) -> None:
    reservation = reserved(new_ledger(path), 1)
    reservation.release(b"one")
    with pytest.raises(LedgerError, match="it is released once only"):
        reservation.release(b"two")


def test_what_is_not_private_costs_everything(path: Path) -> None:
    with pytest.raises(BudgetError):
        new_ledger(path).reserve(charge(1, is_private=False))
    ledger = new_ledger(path.parent / "open", Budget(epsilon=math.inf, delta=2e-5))
    granted = ledger.reserve(charge(1, is_private=False))
    assert isinstance(granted, Reservation)
    assert odometer(ledger, 1e-5) == math.inf
    # A cut-off round without privacy may run again: it has cost ∞ already.
    again = Ledger(ledger._file.path).reserve(charge(1, is_private=False))
    assert isinstance(again, Reservation)


def test_a_plan_that_fits_as_a_whole_runs_to_its_end_and_no_further(path: Path) -> None:
    plan = small_plan()
    ledger = new_ledger(path, Budget(epsilon=plan.epsilon_after(4), delta=2 * plan.delta))
    for number in (1, 2, 3, 4):
        run_round(ledger, number)
    with pytest.raises(BudgetError, match="no longer takes part"):
        ledger.reserve(charge(5))
    with pytest.raises(BudgetError):
        ledger.reserve(charge(1, study="another coordinator's"))
    assert Ledger(path).steps == 20


def test_a_plan_above_the_budget_runs_to_the_steps_that_were_fixed_at_its_first_charge(
    path: Path,
) -> None:
    plan = small_plan(num_rounds=20)
    budget = Budget(epsilon=4.0, delta=2e-5)
    ledger = new_ledger(path, budget)
    for number in range(1, 6):
        run_round(ledger, number, plan)
    # A Rényi filter would have stopped after 3; PLD affords more, fixed before any release.
    fixed = LedgerFile(path).entries()[1].fields["most_steps"]
    assert 25 <= fixed < 30
    with pytest.raises(BudgetError, match="no longer takes part"):
        run_round(ledger, 6, plan)
    assert plan.epsilon_after(5) <= budget.epsilon
    assert epsilon([plan.event(fixed + 1)], 1e-5) > budget.epsilon
    # What such a plan promises is the budget: the plan itself cannot run to its end.
    assert ledger.promise.basis is Basis.LIFETIME_BUDGET
    assert (ledger.promise.epsilon, ledger.promise.delta) == (4.0, 2e-5)


def test_two_studies_share_one_budget(path: Path) -> None:
    plan, other = small_plan(), small_plan(1.2)
    ledger = new_ledger(path, Budget(epsilon=5.0, delta=2e-5))
    taken = {"one": 0, "two": 0}
    for number in range(1, 9):
        for study, chosen in (("one", plan), ("two", other)):
            try:
                ledger.reserve(charge(number, chosen, study=study))
            except BudgetError:
                continue
            taken[study] += 1
    assert min(taken.values()) > 0
    assert max(taken.values()) < 8
    assert odometer(ledger, 1e-5) <= 5.0


def test_the_plan_s_unit_must_be_the_ledger_s(path: Path) -> None:
    ledger = Ledger.create(path, Budget(epsilon=9.0, delta=1e-5), Unit.PERSON)
    with pytest.raises(RefusedError, match="unit is record, the ledger's person"):
        ledger.reserve(charge(1))


def test_the_clock_moves_no_rule(path: Path) -> None:
    times = iter(["2026-01-02T00:00:00", "2020-01-01T00:00:00", "garbage"])
    ledger = Ledger.create(
        path, Budget(epsilon=50.0, delta=2e-5), Unit.RECORD, clock=lambda: next(times)
    )
    run_round(ledger, 1)
    assert Ledger(path).steps == 5


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_budgets_that_cannot_be_meant(epsilon: float, delta: float) -> None:
    with pytest.raises(UsageError):
        Budget(epsilon=epsilon, delta=delta)


def race(path: Path, number: int, results: "multiprocessing.Queue[str]", start: object) -> None:
    ledger = Ledger(path)
    start.wait()  # type: ignore[attr-defined]
    try:
        ledger.reserve(charge(number, study="one"))
        results.put("won")
    except (BudgetError, RoundSpentError):
        results.put("lost")


@pytest.mark.parametrize(
    "numbers",
    [pytest.param((1, 1), marks=pytest.mark.nightly), (1, 2)],
    ids=["same round", "two rounds"],
)
def test_two_processes_race_for_the_last_of_the_budget(
    tmp_path: Path, numbers: tuple[int, int]
) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        path = tmp_path / f"{attempt}.ledger"
        new_ledger(path, Budget(epsilon=2.5, delta=2e-5))  # one round: two cost 2.85 by PLD
        results, start = context.Queue(), context.Barrier(2)
        both = [
            context.Process(target=race, args=(path, number, results, start)) for number in numbers
        ]
        for process in both:
            process.start()
        assert sorted(results.get(timeout=600) for _ in both) == ["lost", "won"]
        for process in both:
            process.join()
        assert Ledger(path).steps == 5


def test_a_reservation_that_no_charge_made_releases_nothing_and_harms_nothing(
    tmp_path: Path,
) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    run_round(ledger, 1)
    for seq in (0, 2, 99):
        with pytest.raises(LedgerError, match="no reservation"):
            Reservation(ledger, seq).release(b"bytes")
    assert Ledger(tmp_path / "site.ledger").steps == 5


def test_a_plan_that_states_a_larger_delta_than_the_budget_is_refused(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    loose = dataclasses.replace(small_plan(), delta=0.9)
    with pytest.raises(RefusedError, match=r"states delta 0\.9"):
        ledger.reserve(charge(1, loose))
    assert ledger.steps == 0
