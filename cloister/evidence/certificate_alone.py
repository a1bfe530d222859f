"""Checks a certificate without its ledger, as a coordinator does.

The site signed what the certificate states about the ledger, but nothing here proves it. Every ε is
recomputed from the plans, events and budget in the certificate. With the ledger at hand,
`certificate.check` checks everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cloister.canonical import canonical
from cloister.errors import LedgerError, RefusedError, UsageError
from cloister.json_text import read_json
from cloister.ledger.budget import Budget, fits_whole, rounded_up
from cloister.ledger.certificate import MOST_STATED, entry_of, same, stored
from cloister.ledger.certificate_forms import (
    COUPLED,
    EVALUATED,
    FIELDS,
    NAMED,
    UNCOUPLED,
    VOTED,
    merged,
    with_rdp,
)
from cloister.ledger.chain import Entry
from cloister.ledger.history import request_of
from cloister.ledger.signing import is_signed
from cloister.ledger.stated import (
    Basis,
    Stated,
    are_among,
    of_budget,
    of_events,
    of_plan,
    of_plan_alone,
)
from cloister.printable import one_line
from cloister.privacy.adversaries import is_name
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit

# Twice the text, because JSON may write every character (a quote) as two bytes.
MOST_BYTES = 2 * MOST_STATED
_WRITTEN = (UNCOUPLED, COUPLED, EVALUATED, VOTED)
_WRITTEN_NOW = " or ".join(map(str, _WRITTEN))
# What fields of another form raise where they are read.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError)
# Most characters of an error in a message; our own errors are shorter.
MOST_SAID = 200


def to_bytes(certificate: Entry) -> bytes:
    """Encodes a certificate for a message or a file."""
    return canonical(stored(certificate))


def check_alone(
    content: bytes, *, site: str, study: str, key: str, most_steps: int
) -> Mapping[str, Any]:
    """Reads and checks a certificate.

    Args:
        content: The bytes of `to_bytes`, not trusted yet.
        site: The site that it must belong to.
        study: Digest of the study that it must belong to.
        key: The site's public key in hex, from another source.
        most_steps: Most steps that a plan of the study may have.

    Returns:
        Its fields.

    Raises:
        LedgerError: It is too long, does not have the form of a certificate, is not signed by the
            key, belongs to another site or study, or states an ε that does not follow from its own
            plans, events and budget.
    """
    if len(content) > MOST_BYTES:
        raise LedgerError(
            f"{site}: the certificate has {len(content)} bytes; at most {MOST_BYTES} are read"
        )
    try:
        certificate = entry_of(read_json(content, most_bytes=MOST_BYTES))
        fields: dict[str, Any] = read_json(certificate.body, most_bytes=MOST_STATED)
        whole = canonical(fields) == certificate.body and fields["kind"] == "certificate"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{site}: this does not have the form of a certificate") from error
    if not is_signed(certificate.body, certificate.signature, key):
        raise LedgerError(f"{site}: the certificate is not signed by the site's key")
    version = fields.get("version")
    if not whole or version not in _WRITTEN or set(fields) != NAMED | FIELDS[version]:
        raise LedgerError(
            f"{site}: this does not have the form of a certificate of version {_WRITTEN_NOW}"
        )
    if fields.get("couples_units", True) is not True and version < EVALUATED:
        raise LedgerError(f"{site}: couples_units may only be true; without it, leave it out")
    if (fields["site"], fields["study"], fields["key"]) != (site, study, key):
        raise LedgerError(f"{site}: the certificate belongs to another site or study")
    try:
        _check_figures(fields, most_steps)
        _check_told(fields)
    except (*_MALFORMED, UsageError, RefusedError) as error:
        # The error may quote a name that the site chose, of any length and any characters.
        said = one_line(str(error), MOST_SAID)
        raise LedgerError(f"{site}: the certificate contradicts itself ({said})") from error
    return fields


def plans_in(fields: Mapping[str, Any]) -> list[Plan]:
    """Returns the plans that a certificate states.

    Raises:
        ValueError: A plan does not match its SHA-256.
    """
    plans = [Plan.from_terms(row["terms"]) for row in fields["plans"]]
    if not plans or [plan.digest() for plan in plans] != [row["sha256"] for row in fields["plans"]]:
        raise ValueError("a plan does not match its SHA-256")
    return plans


def _check_figures(fields: Mapping[str, Any], most_steps: int) -> None:
    plans, unit, life = plans_in(fields), Unit(fields["unit"]), fields["life"]
    events = [GaussianEvent(**row) for row in fields["events"]]
    if any(plan.unit is not unit for plan in plans) or not events:
        raise ValueError("plans of another unit, or no event")
    releases = [release for plan in plans for release in plan.releases]
    kinds = {(release.noise_multiplier, release.sample_rate) for release in releases}
    if any((event.noise_multiplier, event.sample_rate) not in kinds for event in events):
        raise ValueError("an event that is not of its plans")
    planned = sum(release.steps for release in releases)
    if planned > most_steps * len(plans) or sum(event.steps for event in events) > planned:
        raise ValueError(f"more than the {most_steps} steps that a plan of the study has")
    if type(fields["rounds"]) is not int or type(fields["released"]) is not int:
        raise ValueError("rounds that are not a number")
    if not 0 <= fields["released"] <= fields["rounds"]:
        raise ValueError("more rounds released than charged")
    _check_listed(fields, plans, events)
    limit = life["budget"]["epsilon"]
    budget = Budget(epsilon=float("inf") if limit is None else limit, delta=life["budget"]["delta"])
    if fields["promise"]["basis"] == Basis.WHOLE_PLAN:
        delta = _check_plan_promise(fields, plans, events, budget)
    else:
        promised = of_budget(budget, unit, plans)
        # Other studies' plans, which the certificate lacks, may have fewer adversaries.
        _need(
            fields["promise"],
            promised.to_json() | {"adversaries": fields["promise"]["adversaries"]},
            "promise",
        )
        delta = budget.delta / 2
    spent = of_events(events, delta, plans, unit)
    _need(fields["spent"], with_rdp(spent, events), "spent")


def _check_told(fields: Mapping[str, Any]) -> None:
    """Checks the form of what cards and later studies read from a certificate, and does not follow
    from its other figures."""
    head, alone = fields["ledger"], fields["promise_alone"]
    if set(head) != {"seq", "hash"} or type(head["seq"]) is not int or head["seq"] < 0:
        raise ValueError("a ledger's head without its number")
    if re.fullmatch("[0-9a-f]{64}", head["hash"]) is None:
        raise ValueError("a ledger's head without its SHA-256")
    figures = [fields["promise"], fields["spent"], fields["life"]["spent"]]
    for figure in [*figures, *([] if alone is None else [alone])]:
        Stated.from_json(figure)
        named = figure["adversaries"]
        if type(named) is not list or not all(map(is_name, named)):
            raise ValueError("adversaries that are none")


def _check_listed(
    fields: Mapping[str, Any], plans: list[Plan], events: list[GaussianEvent]
) -> None:
    """Checks that evaluations and votes are listed by a plan, and that of each mechanism the steps
    of the stated rounds, evaluations and votes are charged, and no others."""
    if type(fields.get("couples_units", True)) is not bool:
        raise ValueError("couples_units that is not a truth value")
    rounds, voted = _rounds_of(fields, "evaluations"), _rounds_of(fields, "votes")
    listed = [plan.evaluations for plan in plans if plan.evaluations is not None]
    if rounds != sorted(set(rounds)) or set(rounds) - {n for one in listed for n in one.rounds}:
        raise ValueError("an evaluation that no plan lists")
    _check_votes(fields, plans, events, voted)
    if any(plan.votes is not None for plan in plans):
        return
    taken = [plans[0].event(plans[0].compositions(fields["rounds"]))]
    taken += [one.event(len(rounds)) for one in listed]
    exact = len(plans) == 1 and _counted(events) == _counted(taken)
    if not exact and (len(plans) == 1 or not _divisible(events, plans, fields["rounds"], rounds)):
        raise ValueError("steps that are neither of its rounds nor of its evaluations")


def _divisible(
    events: list[GaussianEvent], plans: list[Plan], rounds: int, evaluated: list[int]
) -> bool:
    """Whether the charged steps of several plans can be those of the stated rounds and evaluations.

    The certificate does not say which plan a round was charged under. So for each mechanism the
    number of its evaluations, and the rounds that its other steps make, are bounded, and the stated
    numbers must lie within the sums of these bounds.
    """
    fewest, most, shortest, longest = 0, 0, 0, 0
    for kind, steps in _counted(events).items():
        of_rounds = [plan for plan in plans if kind in _counted([plan.event(1)])]
        listed = {
            number
            for plan in plans
            if plan.evaluations is not None and kind in _counted([plan.evaluations.event()])
            for number in plan.evaluations.rounds
        }
        reached = min(steps, len(listed & {*evaluated}))
        if not of_rounds and reached < steps:
            return False
        most += reached
        if of_rounds:  # these steps may be of rounds, and as far as evaluations are alike, of those
            shortest += -(-(steps - reached) // max(plan.local_steps for plan in of_rounds))
            # With correlated noise a step is charged for a cycle of rounds.
            longest += max(steps * plan.groups // plan.local_steps for plan in of_rounds)
        else:
            fewest += steps
    return fewest <= len(evaluated) <= most and shortest <= rounds <= longest


def _check_votes(
    fields: Mapping[str, Any], plans: list[Plan], events: list[GaussianEvent], voted: list[int]
) -> None:
    """Checks that a study of votes has one step for each stated round of votes, and no others."""
    voting = [plan for plan in plans if plan.votes is not None]
    most = max((plan.num_rounds for plan in voting), default=0)
    if len(voted) != len(set(voted)) or not all(1 <= number <= most for number in voted):
        raise ValueError("a vote that no plan lists")
    if not voting:
        return
    steps = sum(_counted(events).values())
    if len(voting) < len(plans) or fields["rounds"] or steps != len(voted):
        raise ValueError("steps that are not of its votes")


def _rounds_of(fields: Mapping[str, Any], name: str) -> list[int]:
    """Returns the rounds of the stated evaluations or votes; empty: the form has none."""
    stated = fields.get(name, [])
    kinds = [(set(row), type(row["round"]), type(row["released"])) for row in stated]
    if any(kind != ({"round", "released"}, int, bool) for kind in kinds):
        raise ValueError(f"{name} that are not rounds")
    return [row["round"] for row in stated]


def _counted(events: Iterable[GaussianEvent]) -> dict[tuple[float, float], int]:
    """Returns the steps of each mechanism that has any."""
    found = Counter[tuple[float, float]]()
    for event in events:
        found[event.noise_multiplier, event.sample_rate] += event.steps
    return {kind: steps for kind, steps in found.items() if steps}


def _check_plan_promise(
    fields: Mapping[str, Any], plans: list[Plan], events: list[GaussianEvent], budget: Budget
) -> float:
    """Checks that only one plan was ever charged and that the budget covers it; returns its δ."""
    (plan,) = plans
    is_private = all(event.is_private for event in events)
    whole = request_of(plan, is_private=is_private).planned
    life = merged([GaussianEvent(**row) for row in fields["life"]["events"]])
    if life != events or not are_among(events, whole) or not fits_whole(whole, rounded_up(budget)):
        raise ValueError("a whole plan's promise, but more than the plan was charged")
    promised: Stated = of_plan(plan, is_private=is_private)
    alone = of_plan_alone(plan, is_private=is_private)
    _need(fields["promise"], with_rdp(promised, whole), "promise")
    _need(fields["promise_alone"], None if alone is None else alone.to_json(), "promise_alone")
    return plan.delta


def _need(found: object, given: object, name: str) -> None:
    if not same(found, given):
        raise ValueError(f"{name} does not follow from its plans, events and budget")
