"""Lists every charged round with ε recomputed after it, and forecasts how many more rounds fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.ledger.budget import steps_left
from cloister.ledger.chain import Entry
from cloister.ledger.history import History, ReleasedEntry, request_of
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind


@dataclass(frozen=True, kw_only=True)
class ChargedRound:
    """One charged round, and the release that belongs to it.

    Attributes:
        seq: Number of its entry.
        study: Digest of the study.
        round: Round of the study.
        time: The time that the site stated; informative.
        event: The charged event.
        delta: δ of both ε: half of the budget's, at which the budget's rule compares them with its
            ε.
        epsilon_pld: ε of everything charged so far, at that δ, recomputed by PLD: an indication,
            not a promise; None if it was left out.
        epsilon_rdp: The same by RDP.
        release: Its release; None: the round was interrupted and stays spent.
        kind: Whether it was trained, the adapter after it evaluated privately, or units voted.
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
    kind: ReleaseKind = ReleaseKind.TRAINING

    @property
    def label(self) -> str:
        """The round for a table; an evaluation's or a vote's says so."""
        kind = "" if self.kind is ReleaseKind.TRAINING else f" {self.kind}"
        return f"{self.round}{kind}"


@dataclass(frozen=True)
class Forecast:
    """How many more rounds of a plan the budget allows.

    Attributes:
        plan: The plan of the last charge.
        rounds: Rounds of it that still fit; None: no limit.
        curve: (further rounds, ε by PLD of all at `delta`, with the private evaluations after these
            rounds), up to the last that fits.
        delta: Half of the budget's δ, at which the budget's rule compares ε.
    """

    plan: Plan
    rounds: int | None
    curve: tuple[tuple[int, float], ...]
    delta: float


def charged_rounds(
    entries: Sequence[Entry], history: History, most: int = 120
) -> tuple[ChargedRound, ...]:
    """All charges of a checked ledger, oldest first.

    Args:
        entries: The whole ledger.
        history: The state after them.
        most: In longer ledgers ε is recomputed for about this many rounds, including the last.
    """
    charges = [f for entry in entries if (f := entry.fields)["kind"] == "reserve"]
    every = max(1, math.ceil(len(charges) / most))
    rounds, delta = [], history.budget.delta / 2
    spent: Counter[tuple[float, float, bool]] = Counter()
    for number, fields in enumerate(charges):
        event = GaussianEvent(**fields["event"])
        spent[event.noise_multiplier, event.sample_rate, event.is_private] += event.steps
        events = [
            GaussianEvent(noise_multiplier=noise, sample_rate=rate, steps=steps, is_private=private)
            for (noise, rate, private), steps in spent.items()
        ]
        is_shown = (len(charges) - 1 - number) % every == 0
        rounds.append(
            ChargedRound(
                seq=fields["seq"],
                study=fields["study"],
                round=fields["round"],
                time=str(fields["time"]),
                event=event,
                delta=delta,
                epsilon_pld=epsilon(events, delta, COARSE) if is_shown else None,
                epsilon_rdp=rdp_epsilon(events, delta) if is_shown else None,
                release=history.released.get(fields["seq"]),
                kind=ReleaseKind(fields.get("release_kind", ReleaseKind.TRAINING)),
            )
        )
    return tuple(rounds)


def forecast(history: History, points: int = 12) -> Forecast | None:
    """How many more rounds of the last charge's plan fit; None if nothing was charged.

    Args:
        history: The history of a checked ledger.
        points: Number of points of the curve.
    """
    taken = sorted([*history.rounds.items(), *history.votes.items()], key=lambda one: one[1].seq)
    if not taken:
        return None
    (study, number), last = taken[-1]
    plan, spent, budget = history.plans[last.plan], history.spent, history.budget
    alike = [charge for (name, _), charge in taken if (name, charge.plan) == (study, last.plan)]
    charged = len(alike)
    request = request_of(plan, is_private=last.event.is_private)
    steps, delta = steps_left(request, spent, budget), budget.delta / 2
    if steps is None:
        return Forecast(plan, None, (), delta)
    left = plan.rounds_in(steps, charged)
    asked = sorted({round(left * step / points) for step in range(points + 1)})

    def after(more: int) -> float:
        coming = plan.event(_further(plan, charged, more))
        evaluated = _evaluated(history, plan, study, range(number, number + more + 1))
        return epsilon([*spent.events, coming, *evaluated], delta, COARSE)

    return Forecast(plan, left, tuple((more, after(more)) for more in asked), delta)


def _evaluated(
    history: History, plan: Plan, study: str, rounds: range
) -> tuple[GaussianEvent, ...]:
    """The private evaluations that rounds still bring; empty: none."""
    evaluations = plan.evaluations
    if evaluations is None:
        return ()
    due = [n for n in evaluations.rounds if n in rounds and (study, n) not in history.evaluations]
    return (evaluations.event(len(due)),) if due else ()


def _further(plan: Plan, charged: int, more: int) -> int:
    """Steps that further rounds of a plan charge."""
    return plan.compositions(charged + more) - plan.compositions(charged)
