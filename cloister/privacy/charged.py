"""Every round that a ledger charged, with ε recomputed after it; and how many more it affords."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.privacy.accounting import COARSE, epsilon, rdp_at, rdp_budget, rdp_epsilon
from cloister.privacy.budget import Spending, fits_whole
from cloister.privacy.chain import Entry
from cloister.privacy.events import GaussianEvent
from cloister.privacy.history import History, ReleasedEntry
from cloister.privacy.plan import Plan


@dataclass(frozen=True, kw_only=True)
class ChargedRound:
    """One charge, and what left for it.

    Attributes:
        seq: Its entry's number.
        study: Digest of the study.
        round: Of the study.
        time: As the site stated it; informative.
        event: What was charged.
        delta: δ of its plan.
        epsilon_pld: ε of everything charged so far, at that δ, recomputed by PLD; None where it
            was left out.
        epsilon_rdp: The same by RDP.
        release: What left; None: cut off, and spent.
    """

    seq: int
    study: str
    round: int
    time: str
    event: GaussianEvent
    delta: float
    epsilon_pld: float | None
    epsilon_rdp: float | None
    release: ReleasedEntry | None


@dataclass(frozen=True)
class Forecast:
    """What the budget still affords.

    Attributes:
        plan: The plan charged last.
        rounds: Rounds of it that still fit; None: no limit.
        curve: (further rounds, ε by PLD of all), up to the last that fits.
    """

    plan: Plan
    rounds: int | None
    curve: tuple[tuple[int, float], ...]


def charged_rounds(
    entries: Sequence[Entry], history: History, most: int = 120
) -> tuple[ChargedRound, ...]:
    """All charges of a checked ledger, oldest first.

    Args:
        entries: The whole ledger.
        history: What they add up to.
        most: Of longer ledgers, ε is recomputed for about so many rounds, the last among them.
    """
    charges = [f for entry in entries if (f := entry.fields)["kind"] == "reserve"]
    every = max(1, math.ceil(len(charges) / most))
    spent, rounds = Spending(), []
    for number, fields in enumerate(charges):
        event, delta = GaussianEvent(**fields["event"]), float(fields["delta"])
        spent.add(fields["plan"], event, float(fields["order"]))
        is_shown = (len(charges) - 1 - number) % every == 0
        rounds.append(
            ChargedRound(
                seq=fields["seq"],
                study=fields["study"],
                round=fields["round"],
                time=str(fields["time"]),
                event=event,
                delta=delta,
                epsilon_pld=epsilon(spent.events, delta, COARSE) if is_shown else None,
                epsilon_rdp=rdp_epsilon(spent.events, delta) if is_shown else None,
                release=history.released.get(fields["seq"]),
            )
        )
    return tuple(rounds)


def forecast(history: History, points: int = 12) -> Forecast | None:
    """What the budget affords of the plan charged last; None where nothing was charged.

    Args:
        history: Of a checked ledger.
        points: Of the curve.
    """
    if not history.rounds:
        return None
    last = list(history.rounds.values())[-1]
    plan, spent, budget = history.plans[last.plan], history.spent, history.budget
    if math.isinf(budget.epsilon):
        return Forecast(plan, None, ())
    one = plan.event(plan.local_steps)
    left = 0
    order = spent.order
    if order is not None and math.isfinite(spent.divergence):
        limit = rdp_budget(budget.epsilon, budget.delta / 2, order)
        price = rdp_at(one, order)
        left = max(0, math.floor((limit - spent.divergence) / price)) if price > 0 else 0
    if set(spent.plans) == {last.plan} and fits_whole(
        plan.event(plan.local_steps * plan.num_rounds), budget
    ):
        left = max(left, plan.num_rounds - spent.plans[last.plan] // plan.local_steps)
    asked = sorted({round(left * step / points) for step in range(points + 1)})
    curve = tuple(
        (more, epsilon([*spent.events, plan.event(more * plan.local_steps)], plan.delta, COARSE))
        for more in asked
    )
    return Forecast(plan, left, curve)
