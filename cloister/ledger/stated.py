"""A stated ε: always with unit, δ and basis, and never spent steps presented as a promise.

Math:
    Three kinds of figures are shown. `WHOLE_PLAN` is the PLD of every step that a plan may take, at
    the plan's δ: it is fixed before the first release, and holds however early and for any reason
    the plan stops. `LIFETIME_BUDGET` is the budget's (ε, δ), which holds for everything that a data
    set ever releases, for any choice in between (`ledger.budget`). `SPENT_SO_FAR` is the PLD of the
    steps that were taken. If their number depended on what was released it is not an (ε, δ)
    guarantee; it only shows how far a plan has come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Any

from cloister.canonical import json_number
from cloister.ledger.budget import Budget, fits_whole, rounded_up
from cloister.ledger.charge import Charge
from cloister.ledger.history import History, request_of
from cloister.names import counted
from cloister.privacy import adversaries
from cloister.privacy.accounting import COARSE, FINE, epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Neighbouring, Unit


class Basis(StrEnum):
    """What an ε covers: a whole plan, a lifetime budget, or what is spent so far."""

    WHOLE_PLAN = "whole-plan"
    LIFETIME_BUDGET = "lifetime-budget"
    SPENT_SO_FAR = "spent-so-far"


class Accountant(StrEnum):
    """The accountant that computed an ε."""

    PLD = "pld"
    BUDGET_RULE = "budget-rule"  # PLD of one kind of step, or a Rényi filter (`ledger.budget`)


_IN_WORDS = {
    Basis.WHOLE_PLAN: "promised for the whole plan, however early it stops",
    Basis.LIFETIME_BUDGET: "promised for everything that this data set ever releases",
    Basis.SPENT_SO_FAR: "spent so far: an indication, not a promise",
}
# The warning for a ledger with a charge that states `couples_units`.
COUPLED = (
    "a step that made the data's file looked at more than one unit, so ε is about the units of the "
    "file as it was written, and not of what it was made from"
)
_ACCOUNTANTS = {Accountant.PLD: "PLD", Accountant.BUDGET_RULE: "the budget's rule"}


@dataclass(frozen=True, kw_only=True)
class Stated:
    """An ε with δ, unit, neighbouring relation, accountant, adversaries and basis.

    Attributes:
        epsilon: ε; ∞ without protection.
        delta: δ.
        unit: The unit whose presence is hidden.
        neighbouring: Which data sets are neighbours.
        accountant: The accountant that computed it.
        adversaries: The adversaries against whom it holds, by their names in certificates.
        basis: What it covers: a whole plan, a budget, or what is spent so far.
    """

    epsilon: float
    delta: float
    unit: Unit
    neighbouring: Neighbouring
    accountant: Accountant
    adversaries: tuple[str, ...]
    basis: Basis

    @property
    def is_promise(self) -> bool:
        """Whether it is an (ε, δ) guarantee."""
        return self.basis is not Basis.SPENT_SO_FAR

    def to_json(self) -> dict[str, Any]:
        """Returns the statement as JSON values; ∞ is null."""
        return {
            "epsilon": json_number(self.epsilon),
            "delta": self.delta,
            "unit": self.unit.value,
            "neighbouring": self.neighbouring.value,
            "accountant": self.accountant.value,
            "adversaries": list(self.adversaries),
            "basis": self.basis.value,
            "is_promise": self.is_promise,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Stated:
        """Reads a figure from the JSON of `to_json`; ignores further fields.

        Raises:
            KeyError: A field is missing.
            ValueError: A field is invalid.
        """
        value = document["epsilon"]
        return cls(
            epsilon=math.inf if value is None else float(value),
            delta=float(document["delta"]),
            unit=Unit(document["unit"]),
            neighbouring=Neighbouring(document["neighbouring"]),
            accountant=Accountant(document["accountant"]),
            adversaries=tuple(str(name) for name in document["adversaries"]),
            basis=Basis(document["basis"]),
        )

    def __str__(self) -> str:
        return (
            f"{self.short}, for one {self.unit} added or removed "
            f"({_ACCOUNTANTS[self.accountant]}), against {self.against}: {self.of_what}"
        )

    @property
    def short(self) -> str:
        """ε and δ alone, for a place that shows the rest."""
        return f"ε = {shown(self.epsilon)} at δ = {self.delta:g}"

    @property
    def against(self) -> str:
        """The adversaries against whom it holds, in words."""
        return adversaries.words_of(self.adversaries)

    @property
    def of_what(self) -> str:
        """Whether it is a promise, in words."""
        return _IN_WORDS[self.basis]


# Digits of an ε after the decimal point.
DIGITS = 4


def shown(value: float | None, digits: int = DIGITS) -> str:
    """Formats an ε as text, rounded up, so that the text never states less than the value.

    Args:
        value: ε; None (from JSON) and infinity are shown as ∞.
        digits: Digits after the decimal point.
    """
    if value is None or math.isinf(value):
        return "∞"
    # repr gives the shortest decimal that is this float, so that 0.3 stays 0.3.
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_CEILING))


def limit_shown(limit: float) -> str:
    """Formats a budget's ε as it was stated; one of more digits as the ε that stand beside it."""
    text = f"{limit:g}"
    digits = len(text.partition(".")[2])
    return text if digits <= DIGITS else shown(limit)


def of_plan(plan: Plan, *, is_private: bool = True) -> Stated:
    """The promised ε of a whole plan, if nothing else ever runs.

    Args:
        plan: The plan.
        is_private: Whether its randomness is unpredictable.
    """
    every = request_of(plan, is_private=is_private).planned
    return _of(every, plan.delta, [plan], plan.unit, Basis.WHOLE_PLAN)


def of_plan_alone(plan: Plan, *, is_private: bool = True) -> Stated | None:
    """`of_plan` against the coordinator with all other sites; None if no noise is shared."""
    every = request_of(plan, is_private=is_private).planned
    seen = adversaries.alone([(plan, event) for event in every])
    if seen is None:
        return None
    found = _of(seen, plan.delta, [plan], plan.unit, Basis.WHOLE_PLAN)
    return replace(found, adversaries=adversaries.ALL_OTHERS)


def of_events(
    events: Iterable[GaussianEvent],
    delta: float,
    plans: Iterable[Plan],
    unit: Unit,
    grid: float = FINE,
) -> Stated:
    """ε of the steps that were taken: an indication."""
    return _of(events, delta, plans, unit, Basis.SPENT_SO_FAR, grid)


def of_budget(budget: Budget, unit: Unit, plans: Iterable[Plan] = ()) -> Stated:
    """The promised ε of a budget, for any studies."""
    return Stated(
        epsilon=budget.epsilon,
        delta=budget.delta,
        unit=unit,
        neighbouring=Neighbouring.ADD_REMOVE,
        accountant=Accountant.BUDGET_RULE,
        adversaries=tuple(adversaries.names(plans)),
        basis=Basis.LIFETIME_BUDGET,
    )


def promise(history: History) -> Stated:
    """The promised ε of a ledger: that of the whole plan if only one plan of one study was ever
    charged and the budget covers all of it; else the budget's.

    Guarantees:
        A function of plans and budget alone; it does not change while a plan runs.
    """
    plan = _only_plan(history)
    if plan is None:
        return of_budget(history.budget, history.unit, history.plans.values())
    return of_plan(plan, is_private=_is_private(history))


def promise_alone(history: History) -> Stated | None:
    """The promised ε against the coordinator with all other sites, if noise is shared.

    Returns:
        None if no noise is shared: then `promise` holds against them, too. ε = ∞ if the promise is
        the budget's, which counts all of the shared noise and so promises nothing against them.
    """
    if adversaries.colluding(history.plans.values()) is None:
        return None
    plan = _only_plan(history)
    if plan is not None:
        return of_plan_alone(plan, is_private=_is_private(history))
    return replace(promise(history), epsilon=math.inf, adversaries=adversaries.ALL_OTHERS)


def spent(history: History, study: str | None = None, grid: float = FINE) -> Stated:
    """ε of the steps that were taken, at the δ that compares with `promise`.

    Args:
        history: The ledger's history.
        study: The study whose steps count; None: all.
        grid: Grid of the privacy loss distributions.
    """
    charged = history.charged(study)
    events, plans = [event for _, event in charged], [plan for plan, _ in charged]
    return of_events(events, beside(promise(history), history), plans, history.unit, grid)


def spent_alone(history: History, study: str | None = None) -> Stated | None:
    """`spent` against the coordinator with all other sites; None if no noise is shared."""
    seen = adversaries.alone(history.charged(study))
    if seen is None:
        return None
    delta = beside(promise(history), history)
    found = of_events(seen, delta, history.plans.values(), history.unit)
    return replace(found, adversaries=adversaries.ALL_OTHERS)


def used(history: History, grid: float = FINE) -> Stated:
    """ε spent of the budget, at half of its δ, where the budget's rule compares it with its ε."""
    delta, plans = history.budget.delta / 2, history.plans.values()
    return of_events(history.spent.events, delta, plans, history.unit, grid)


def exhausted(history: History, name: str, charge: Charge) -> str:
    """The message that a budget does not cover another release.

    Args:
        history: The ledger's.
        name: The ledger's name.
        charge: What does not fit.
    """
    steps, kind = charge.plan.local_steps, charge.kind
    more = f"another {counted(steps, 'step')} {'does' if steps == 1 else 'do'} not fit"
    if kind is not ReleaseKind.TRAINING:
        what = "private evaluation" if kind is ReleaseKind.EVALUATION else "round of votes"
        more = f"another {what} does not fit"
    so_far, budget = used(history, COARSE), history.budget
    return (
        f"{name}: the lifetime budget is epsilon {budget.epsilon:g} at delta "
        f"{budget.delta:g} (each way to fit gets half of delta); at delta "
        f"{so_far.delta:g}, {shown(so_far.epsilon)} of {limit_shown(budget.epsilon)} is spent and "
        f"{more}: this site no longer takes part"
    )


def of_budget_used(found: Stated, budget: Budget) -> str:
    """ε spent of a budget, in words, with one δ for both."""
    if math.isinf(budget.epsilon):
        return f"ε = {shown(found.epsilon)} at δ = {found.delta:g} ({found.of_what}); no limit"
    return (
        f"ε = {shown(found.epsilon)} of the budget's {limit_shown(budget.epsilon)}, both at δ = "
        f"{found.delta:g}, half of the budget's δ, at which its rule compares them "
        f"({found.of_what})"
    )


def promised_events(history: History) -> tuple[GaussianEvent, ...]:
    """All steps of the one plan if that is the promise; empty if the budget is."""
    plan = _only_plan(history)
    return () if plan is None else request_of(plan, is_private=_is_private(history)).planned


def beside(promised: Stated, history: History) -> float:
    """The δ at which spent ε compares with a promise: the plan's, or half of the budget's, which is
    the part for each way to fit."""
    if promised.basis is Basis.LIFETIME_BUDGET:
        return history.budget.delta / 2
    return promised.delta


def _only_plan(history: History) -> Plan | None:
    """The plan if only it was ever charged, in one study, and the budget covers it; else None."""
    if len(history.plans) != 1 or len(history.studies) != 1:
        return None
    (plan,) = history.plans.values()
    whole = request_of(plan, is_private=_is_private(history)).planned
    covered = fits_whole(whole, rounded_up(history.budget))
    return plan if covered and are_among(history.spent.events, whole) else None


def are_among(events: Iterable[GaussianEvent], planned: Iterable[GaussianEvent]) -> bool:
    """Whether a plan's list has all of these releases: of each mechanism at least as many steps."""
    left = Counter[tuple[float, float]]()
    for event in planned:
        left[event.noise_multiplier, event.sample_rate] += event.steps
    for event in events:
        left[event.noise_multiplier, event.sample_rate] -= event.steps
    return all(steps >= 0 for steps in left.values())


def _is_private(history: History) -> bool:
    return all(kind.is_private for kind in history.spent.by_kind)


def _of(
    events: Iterable[GaussianEvent],
    delta: float,
    plans: Iterable[Plan],
    unit: Unit,
    basis: Basis,
    grid: float = FINE,
) -> Stated:
    return Stated(
        epsilon=epsilon(events, delta, grid),
        delta=delta,
        unit=unit,
        neighbouring=Neighbouring.ADD_REMOVE,
        accountant=Accountant.PLD,
        adversaries=tuple(adversaries.names(plans)),
        basis=basis,
    )
