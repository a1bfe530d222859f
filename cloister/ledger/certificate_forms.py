"""The fields of a certificate in each version; old versions keep their meaning for ever.

1, 2    `epsilon`: ε of the steps that were taken, at the plan's δ. This is an odometer reading: it
        is not a promise if the number of steps depended on earlier releases.
3       `promise`: ε of the whole plan, or of the data set's budget; `spent`: ε of the steps that
        were taken, marked as an indication (`ledger.stated`).
4       as 3, with `couples_units`: ε is about the units of the data's file as it was written,
        because a step that made the file read more than one unit. Used only for such data.
5       as 4, with `evaluations`: the private evaluations of the study, by round; `rounds` and
        `released` count trained rounds. Used only for a ledger that charged one; `couples_units`
        is true or false in it.
6       as 5, with `votes`: the rounds in which units voted for candidate texts. Used only for a
        ledger that charged one; `evaluations` may be empty in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cloister.canonical import canonical, json_number
from cloister.errors import UsageError
from cloister.ledger import stated
from cloister.ledger.history import History, Reserved
from cloister.ledger.stated import Basis, Stated
from cloister.ledger.verify import Verdict
from cloister.printable import one_line
from cloister.privacy import adversaries
from cloister.privacy.accounting import epsilon, rdp_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.units import Neighbouring

# The versions that are written now: for ledgers with votes, with private evaluations, for data with
# coupled units, and for all others.
VOTED = VERSION = 6
EVALUATED = 5
COUPLED = 4
UNCOUPLED = 3

# Fields of a certificate besides its `statement`.
NAMED = frozenset({"kind", "version", "site", "key", "study", "base", "adapter", "code", "time"})
# Fields of each version, besides NAMED.
FIELDS = {
    1: frozenset(
        {
            "plans",
            "events",
            "rounds",
            "released",
            "epsilon",
            "delta",
            "unit",
            "neighbouring",
            "adversaries",
            "life",
            "ledger",
        }
    ),
    2: frozenset(
        {
            "plans",
            "events",
            "rounds",
            "released",
            "epsilon",
            "delta",
            "unit",
            "neighbouring",
            "adversaries",
            "epsilon_alone",
            "life",
            "ledger",
        }
    ),
    3: frozenset(
        {
            "plans",
            "events",
            "rounds",
            "released",
            "promise",
            "promise_alone",
            "spent",
            "spent_alone",
            "unit",
            "neighbouring",
            "life",
            "ledger",
        }
    ),
}
FIELDS[COUPLED] = FIELDS[UNCOUPLED] | {"couples_units"}
FIELDS[EVALUATED] = FIELDS[COUPLED] | {"evaluations"}
FIELDS[VOTED] = FIELDS[EVALUATED] | {"votes"}
# Fields that machines may round differently.
COMPUTED = frozenset({"epsilon", "epsilon_alone", "epsilon_rdp"})


def version_of(history: History) -> int:
    """Returns the version in which a ledger's certificate is written now."""
    if history.votes:
        return VOTED
    if history.evaluations:
        return EVALUATED
    return COUPLED if history.couples_units else UNCOUPLED


def statement(verdict: Verdict, study: str, version: int | None = None) -> dict[str, Any]:
    """The statement of a verified ledger about a study.

    Args:
        verdict: The verdict on the ledger.
        study: Digest of the study's recipe.
        version: Version of the certificate; None: the one that is written now.

    Raises:
        UsageError: The ledger has no such study.
    """
    history = verdict.history
    version = version_of(history) if version is None else version
    rounds = [charged for (name, _), charged in history.rounds.items() if name == study]
    evaluated = [(n, c) for (name, n), c in history.evaluations.items() if name == study]
    voted = [(n, c) for (name, n), c in history.votes.items() if name == study]
    others = [charged for _, charged in (*evaluated, *voted)]
    if not rounds and not others:
        raise UsageError(f"study {one_line(study, 12)}: no round of it was charged in this ledger")
    every = sorted([*rounds, *others], key=lambda one: one.seq)
    plans = [history.plans[digest] for digest in dict.fromkeys(c.plan for c in every)]
    figures = (
        _figures(history, study, _budget(verdict))
        if version >= UNCOUPLED
        else _old_figures(verdict, study, every, plans, version)
    )
    return {
        "plans": [
            {"sha256": plan.digest(), "terms": json.loads(canonical(plan.terms()))}
            for plan in plans
        ],
        "events": [asdict(event) for event in merged([charged.event for charged in every])],
        "rounds": len(rounds),
        "released": sum(charged.seq in history.released for charged in rounds),
        "unit": verdict.unit,
        "neighbouring": Neighbouring.ADD_REMOVE.value,
        "ledger": asdict(verdict.head),
        **figures,
        **({"couples_units": history.couples_units} if version >= COUPLED else {}),
        **({"evaluations": _by_round(history, evaluated)} if version >= EVALUATED else {}),
        **({"votes": _by_round(history, voted)} if version >= VOTED else {}),
    }


def _by_round(
    history: History, taken: Sequence[tuple[int, Reserved]]
) -> list[dict[str, int | bool]]:
    """The private evaluations or votes of a study, in the order of their charges."""
    return [
        {"round": number, "released": charged.seq in history.released} for number, charged in taken
    ]


def merged(events: Sequence[GaussianEvent]) -> list[GaussianEvent]:
    """Joins equal mechanisms, in the order of their first release."""
    steps: dict[tuple[float, float, bool], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sample_rate, event.is_private)
        steps[key] = steps.get(key, 0) + event.steps
    return [
        GaussianEvent(noise_multiplier=s, sample_rate=q, steps=t, is_private=p)
        for (s, q, p), t in steps.items()
    ]


def _figures(history: History, study: str, budget: dict[str, Any]) -> dict[str, Any]:
    promised = stated.promise(history)
    return {
        "promise": with_rdp(promised, stated.promised_events(history)),
        "promise_alone": _json(stated.promise_alone(history)),
        "spent": with_rdp(
            stated.spent(history, study), [event for _, event in history.charged(study)]
        ),
        "spent_alone": _json(stated.spent_alone(history, study)),
        "life": {
            "events": [asdict(event) for event in history.spent.events],
            "spent": with_rdp(stated.spent(history), history.spent.events),
            "spent_alone": _json(stated.spent_alone(history)),
            "budget": budget,
        },
    }


def with_rdp(figure: Stated, events: Sequence[GaussianEvent]) -> dict[str, Any]:
    """A figure by PLD with the RDP value beside it; a budget's figure has none."""
    if figure.basis is Basis.LIFETIME_BUDGET:
        return figure.to_json()
    rdp = rdp_epsilon(events, figure.delta)
    return {**figure.to_json(), "epsilon_rdp": json_number(rdp)}


def _json(figure: Stated | None) -> dict[str, Any] | None:
    return None if figure is None else figure.to_json()


def _budget(verdict: Verdict) -> dict[str, Any]:
    return {"epsilon": json_number(verdict.budget_epsilon), "delta": verdict.budget_delta}


def _old_figures(
    verdict: Verdict, study: str, rounds: Sequence[Reserved], plans: Sequence[Plan], version: int
) -> dict[str, Any]:
    """Returns the figures of a certificate of version 1 or 2."""
    history, delta = verdict.history, min(plan.delta for plan in plans)
    life: dict[str, Any] = {
        "events": [asdict(event) for event in history.spent.events],
        "epsilon": {
            "pld": json_number(verdict.epsilon_pld),
            "rdp": json_number(verdict.epsilon_rdp),
        },
        "delta": verdict.delta,
        "budget": _budget(verdict),
    }
    found: dict[str, Any] = {
        "epsilon": _both(merged([charged.event for charged in rounds]), delta),
        "delta": delta,
        "adversaries": adversaries.names(plans),
        "life": life,
    }
    if version >= 2:
        found["epsilon_alone"] = _alone(history.charged(study), delta)
        life["adversaries"] = adversaries.names(history.plans.values())
        life["epsilon_alone"] = _alone(history.charged(), verdict.delta)
    return found


def _both(events: Sequence[GaussianEvent], delta: float) -> dict[str, float | None]:
    return {
        "pld": json_number(epsilon(events, delta)),
        "rdp": json_number(rdp_epsilon(events, delta)),
    }


def _alone(charged: adversaries.Charged, delta: float) -> dict[str, float | None] | None:
    """ε against the coordinator together with all other sites; None if it is the same ε."""
    events = adversaries.alone(charged)
    return None if events is None else _both(merged(events), delta)
