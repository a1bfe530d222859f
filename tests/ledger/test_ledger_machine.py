"""Any sequence of requests, releases, crashes and reopenings behaves as a model in memory."""

import math
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from cloister.errors import BudgetError, LedgerError, RefusedError, RoundSpentError
from cloister.ledger.budget import Budget, Spending, fits, terms_for
from cloister.ledger.charge import Charge, Released
from cloister.ledger.history import request_of
from cloister.ledger.ledger import Ledger
from cloister.ledger.planned_round import PlannedRound
from cloister.ledger.reservation import Reservation
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.accounting import COARSE, epsilon
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from tests.support.examples import tries
from tests.support.ledgers import small_plan
from tests.support.power_cut import memory_folder

DELTA = 1e-5
FIRST, SECOND = small_plan(), small_plan(1.5, num_rounds=2)
LONGER = small_plan(num_rounds=5)  # the first plan's steps, more of them
# Few, so that their ε is computed once; one without privacy, one that hides persons.
PLANS = {
    "first": FIRST,
    "second": SECOND,
    "longer": LONGER,
    "open": replace(FIRST, noise_multiplier=0.0, max_grad_norm=None, max_update_norm=None),
    "persons": replace(FIRST, unit=Unit.PERSON),
}
BUDGETS = {
    "one plan": Budget(epsilon=FIRST.epsilon_after(4), delta=2 * DELTA),
    "several plans": Budget(epsilon=5.0, delta=2 * DELTA),
    "none": Budget(epsilon=math.inf, delta=2 * DELTA),
}


@dataclass
class Charged:
    """A round in the model."""

    plan: Plan
    request: str
    is_private: bool
    released: bytes | None = None

    @property
    def asked(self) -> PlannedRound:
        return request_of(self.plan, is_private=self.is_private)


class Model:
    """What a ledger does, without a disk.

    Args:
        budget: For its life.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.rounds: dict[tuple[str, int], Charged] = {}
        self.entries = 1

    @property
    def spent(self) -> Spending:
        spent = Spending()
        for charged in self.rounds.values():
            spent.add(charged.asked, terms_for(charged.asked, spent, self.budget))
        return spent

    def reserve(self, charge: Charge) -> type | bytes:
        """The class of what is granted or raised, or the bytes that were released."""
        place = (charge.study, charge.round)
        before = self.rounds.get(place)
        if before is not None:
            if (before.plan, before.request) != (charge.plan, charge.request):
                return RefusedError
            if before.released is not None:
                return before.released
            return RoundSpentError if before.is_private else Reservation
        if charge.plan.unit is not Unit.RECORD:
            return RefusedError
        new = Charged(charge.plan, charge.request, charge.plan.is_private and charge.is_private)
        spent = self.spent
        if not fits(new.asked, spent, self.budget, terms_for(new.asked, spent, self.budget)):
            return BudgetError
        self.rounds[place] = new
        self.entries += 1
        return Reservation

    def release(self, place: tuple[str, int], payload: bytes) -> type | bytes:
        charged = self.rounds[place]
        if charged.released is not None:
            return LedgerError
        charged.released = payload
        self.entries += 1
        return payload


def outcome(call: Any, *arguments: Any) -> tuple[type | bytes, Any]:
    """What a model says of a call, and what the call returned."""
    try:
        result = call(*arguments)
    except (BudgetError, LedgerError, RefusedError) as error:
        return type(error), None
    return (result.payload if isinstance(result, Released) else type(result)), result


class LedgerMachine(RuleBasedStateMachine):
    """Two openings of one ledger, as two processes have them, against one model."""

    reservations = Bundle("reservations")

    @initialize(budget=st.sampled_from(sorted(BUDGETS)))
    def begin(self, budget: str) -> None:
        self.folder = memory_folder()
        self.path = self.folder.__enter__() / "site.ledger"
        self.model = Model(BUDGETS[budget])
        self.ledgers = [Ledger.create(self.path, self.model.budget, Unit.RECORD)] * 2
        self.asked: list[Charge] = []
        self.steps = 0
        self.cost = 0.0

    def _ask(self, which: int, charge: Charge) -> Any:
        expected = self.model.reserve(charge)
        found, granted = outcome(self.ledgers[which].reserve, charge)
        assert found == expected
        self.asked.append(charge)
        if isinstance(granted, Reservation):
            return ((charge.study, charge.round), granted)
        return multiple()

    @rule(
        target=reservations,
        which=st.integers(0, 1),
        study=st.sampled_from(["one", "two"]),
        number=st.integers(1, 5),
        plan=st.sampled_from(["first"] * 3 + ["second", "longer"] * 2 + ["open", "persons"]),
        request=st.sampled_from(["adapter", "adapter", "another"]),
        is_private=st.sampled_from([True, True, True, False]),
    )
    def reserve(
        self, which: int, study: str, number: int, plan: str, request: str, is_private: bool
    ) -> Any:
        charge = Charge(
            study=study, round=number, plan=PLANS[plan], request=request, is_private=is_private
        )
        return self._ask(which, charge)

    @rule(target=reservations, which=st.integers(0, 1), spot=st.integers(0, 99))
    def repeat(self, which: int, spot: int) -> Any:
        if not self.asked:
            return multiple()
        return self._ask(which, self.asked[spot % len(self.asked)])

    @rule(
        target=reservations,
        reservation=consumes(reservations),
        payload=st.sampled_from([b"", b"one", b"two" * 2000]),
        again=st.booleans(),
    )
    def release(
        self, reservation: tuple[tuple[str, int], Reservation], payload: bytes, again: bool
    ) -> Any:
        place, granted = reservation
        expected = self.model.release(place, payload)
        found, _ = outcome(granted.release, payload)
        assert found == expected
        return reservation if again else multiple()

    @rule(reservation=consumes(reservations))
    def crash_before_the_release(self, reservation: tuple[tuple[str, int], Reservation]) -> None:
        self.ledgers = [Ledger(self.path), Ledger(self.path)]

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.ledgers[which] = Ledger(self.path)

    @rule()
    def nothing_but_the_ledger_s_own_files_is_left(self) -> None:
        names = {file.name.removeprefix("site.ledger") for file in self.path.parent.iterdir()}
        assert names == {"", ".key", ".lock", ".head"}

    @invariant()
    def what_is_known_is_the_model_s(self) -> None:
        if not hasattr(self, "model"):
            return
        ledger = Ledger(self.path)
        spent = self.model.spent
        assert ledger.steps == sum(spent.plans.values())
        assert ledger.head.seq == self.model.entries - 1
        cost = epsilon(ledger._history.spent.events, DELTA, COARSE)
        assert cost == epsilon(spent.events, DELTA, COARSE)
        assert ledger._history.spent == spent
        # Charges only grow, and stay within the budget by an accountant that no rule used.
        assert ledger.steps >= self.steps
        assert cost >= self.cost
        assert cost <= self.model.budget.epsilon + 5 * COARSE
        self.steps, self.cost = ledger.steps, cost

    @invariant()
    def what_was_released_is_released_again(self) -> None:
        if not hasattr(self, "model"):
            return
        for (study, number), charged in self.model.rounds.items():
            if charged.released is not None:
                charge = Charge(
                    study=study, round=number, plan=charged.plan, request=charged.request
                )
                again = self.ledgers[number % 2].reserve(charge)
                assert isinstance(again, Released)
                assert again.payload == charged.released

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        try:
            heads = [ledger.head for ledger in self.ledgers]
            verify(LedgerFile(self.path).entries(), "it", anchors=heads)
        finally:
            self.folder.__exit__(None, None, None)


LedgerMachine.TestCase.settings = settings(
    max_examples=tries(160),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLedgerMachine = LedgerMachine.TestCase
