"""The state of a ledger after its entries: what was charged, planned and released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloister import __version__
from cloister.canonical import json_number
from cloister.errors import LedgerError, UsageError
from cloister.ledger.budget import Budget, FirstCharge, Spending, several
from cloister.ledger.chain import Entry, Head, follow
from cloister.ledger.planned_round import PlannedRound, StepKind
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.units import Neighbouring, Unit

# Most characters of the reason in the message about an unreadable entry.
MOST_WHY = 200


@dataclass(frozen=True)
class Reserved:
    """A round that the ledger charged."""

    seq: int
    plan: str
    request: str
    event: GaussianEvent


@dataclass(frozen=True)
class ReleasedEntry:
    """A release's entry: its number and hash, and SHA-256 and number of its bytes."""

    seq: int
    hash: str
    sha256: str
    bytes: int


class History:
    """A ledger's state after the entries so far.

    Attributes:
        head: The head after the last entry.
        budget: From the first entry.
        unit: From the first entry.
        person: Column that tells persons apart, from the first entry; None where it does not say.
        public_key: From the first entry, in hex.
        couples_units: Whether any charge says that units of the file as it was written are meant.
        spent: The sum of all charges.
        plans: Plans that were charged, by digest.
        rounds: Reservations of trained rounds by (study, round).
        evaluations: Reservations of private evaluations by (study, round after which they are).
        votes: Reservations of votes by (study, round).
        released: Releases by the number of their charge's entry.
        unit_key: Fingerprint of the key by which units have their groups; empty until a charge
            states it.
    """

    head: Head
    budget: Budget
    unit: Unit
    person: str | None
    public_key: str
    spent: Spending

    def __init__(self) -> None:
        self._begun = False
        self.couples_units = False
        self.rounds: dict[tuple[str, int], Reserved] = {}
        self.evaluations: dict[tuple[str, int], Reserved] = {}
        self.votes: dict[tuple[str, int], Reserved] = {}
        self.released: dict[int, ReleasedEntry] = {}
        self.plans: dict[str, Plan] = {}
        self.unit_key = ""
        self._last: dict[tuple[str, ReleaseKind], int] = {}
        self._reservations: dict[int, tuple[str, str]] = {}
        self._of_plan: dict[tuple[str, str], list[int]] = {}

    def add(self, entry: Entry) -> PlannedRound | None:
        """Adds the next entry to the history.

        Returns:
            The charged round if the entry is a charge, already added to `spent`; else None.

        Raises:
            LedgerError: The entry does not follow the last one, or a field is missing or invalid.
        """
        head = follow([entry], self.head if self._begun else None, None)
        assert head is not None
        try:
            request = self._take(entry.fields, head)
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            why = repr(error)[:MOST_WHY]
            raise LedgerError(f"entry {head.seq}: not readable ({why})") from error
        self.head = head
        return request

    def charged(self, study: str | None = None) -> list[tuple[Plan, GaussianEvent]]:
        """Events with their plans, in the order of their charges, of one study or of all."""
        found = [
            reserved
            for taken in (self.rounds, self.evaluations, self.votes)
            for (name, _), reserved in taken.items()
            if study in (None, name)
        ]
        found.sort(key=lambda reserved: reserved.seq)
        return [(self.plans[reserved.plan], reserved.event) for reserved in found]

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies of all charges, in the order of their first charge."""
        return tuple(dict.fromkeys(study for study, _ in self._reservations.values()))

    def reserved(self, study: str, number: int, kind: ReleaseKind) -> Reserved | None:
        """The charge of a round, or of the evaluation after it; None: it was not charged."""
        return self._taken(kind).get((study, number))

    def _taken(self, kind: ReleaseKind) -> dict[tuple[str, int], Reserved]:
        """The charges of a kind."""
        return {
            ReleaseKind.TRAINING: self.rounds,
            ReleaseKind.EVALUATION: self.evaluations,
            ReleaseKind.VOTE: self.votes,
        }[kind]

    def untimely(self, plan: Plan, study: str, number: int, kind: ReleaseKind) -> str | None:
        """Why a release does not come at its declared moment; None: it does.

        An evaluation after round r comes before every later round, and after it no round up to r
        is trained any more. Votes may come in any order, each in a round of the plan.
        """
        if kind is ReleaseKind.VOTE:
            if plan.votes is not None and 1 <= number <= plan.num_rounds:
                return None
            return f"the plan lists no vote in round {number}"
        evaluated = self._last.get((study, ReleaseKind.EVALUATION), 0)
        if kind is ReleaseKind.TRAINING:
            if number > evaluated:
                return None
            return f"round {number}: the adapter after round {evaluated} was evaluated already"
        if plan.evaluations is None or number not in plan.evaluations.rounds:
            return f"the plan lists no evaluation after round {number}"
        trained = self._last.get((study, ReleaseKind.TRAINING), 0)
        if max(trained, evaluated) > number:
            return f"the evaluation after round {number}: a later round was charged already"
        return None

    @property
    def training_steps(self) -> int:
        """The charged steps of trained rounds, without private evaluations and votes."""
        return sum(charged.event.steps for charged in self.rounds.values())

    def rows(self, study: str, plan: str) -> Sequence[int]:
        """The trained rounds of a plan in a study, by their entries' numbers, in their order."""
        return self._of_plan.get((study, plan), [])

    def is_reserved(self, seq: int) -> bool:
        """Whether an entry is a charge."""
        return seq in self._reservations

    def _take(self, fields: dict[str, Any], head: Head) -> PlannedRound | None:
        kind = fields["kind"]
        _text(fields, "time")  # only reports use it
        if (kind == "begin") is not (head.seq == 0):
            raise ValueError("only the first entry may be, and must be, of kind begin")
        if kind == "begin":
            limit = None if fields["epsilon"] is None else _number(fields, "epsilon")
            self.budget = Budget(
                epsilon=math.inf if limit is None else limit, delta=_number(fields, "delta")
            )
            self.unit = Unit(fields["unit"])
            self.person = _text(fields, "person") if "person" in fields else None
            if fields["neighbouring"] != Neighbouring.ADD_REMOVE:
                raise ValueError(f"unknown neighbours {fields['neighbouring']!r}")
            self.public_key = _text(fields, "key")
            self.spent = Spending()
            self._begun = True
            return None
        if kind == "reserve":
            return self._reserve(fields, head)
        if kind == "release":
            reservation = _whole(fields, "reservation")
            if reservation not in self._reservations or reservation in self.released:
                raise ValueError("a release without a charge of its own")
            if not self.may_release(reservation):
                raise ValueError("a release of correlated noise after a later charge of its plan")
            self.released[reservation] = ReleasedEntry(
                head.seq, head.hash, _text(fields, "sha256"), _whole(fields, "bytes")
            )
            return None
        raise ValueError(f"unknown kind {kind!r}")

    def _reserve(self, fields: dict[str, Any], head: Head) -> PlannedRound:
        event = GaussianEvent(**fields["event"])
        if type(event.is_private) is not bool or type(event.steps) is not int:
            raise TypeError("an event whose steps or is_private have another type")
        kind = ReleaseKind.TRAINING
        if "release_kind" in fields:  # training is not stated, as in older ledgers
            kind = ReleaseKind(fields["release_kind"])
            if kind is ReleaseKind.TRAINING:
                raise ValueError("release_kind is there for other kinds than training alone")
        place = (_text(fields, "study"), _whole(fields, "round"))
        if self.reserved(*place, kind) is not None:
            raise ValueError("a round charged twice")
        if fields.get("couples_units", True) is not True:
            raise ValueError("couples_units is there where it is true alone")
        digest = _text(fields, "plan")
        if type(fields["epsilon"]) is not dict:
            raise TypeError("epsilon: by accountant is needed")
        plan = self._plan(digest, fields)
        before = len(self.rows(place[0], digest))
        untimely = self.untimely(plan, *place, kind)
        if untimely is not None:
            raise ValueError(untimely)
        if kind not in dict(plan.listed):
            raise ValueError(f"a release for {kind}, which its plan does not list")
        request = request_of(plan, is_private=event.is_private, before=before, kind=kind)
        if plan.bands:
            self._check_banded(fields, before)
        elif fields.keys() & {"step", "units"}:
            raise ValueError("step, units: only rounds with correlated noise have them")
        planned = _whole(fields, "planned_steps")
        stated = (event, planned, fields["delta"])
        if stated != (request.event, request.planned_steps, plan.delta):
            raise ValueError("a charge that differs from its plan")
        if plan.delta > self.budget.delta:
            raise ValueError("a delta above the budget's")
        reserved = Reserved(head.seq, digest, _text(fields, "request"), event)
        self._taken(kind)[place] = reserved
        if kind is ReleaseKind.TRAINING:
            self._of_plan.setdefault((place[0], digest), []).append(head.seq)
        self._last[place[0], kind] = max(place[1], self._last.get((place[0], kind), 0))
        self._reservations[head.seq] = (place[0], digest)
        self.couples_units = self.couples_units or "couples_units" in fields
        self.spent.add(request, self._terms(fields, request))
        return request

    def may_release(self, seq: int) -> bool:
        """Whether a charge may still be released: with correlated noise, until the next charge.

        The next step counts every charge that was not released as never seen, so that it stays so.
        """
        study, plan = self._reservations[seq]
        return not self.plans[plan].bands or self.rows(study, plan)[-1] == seq

    def _check_banded(self, fields: dict[str, Any], before: int) -> None:
        if _whole(fields, "step") != before:
            raise ValueError("a step that is not the next one of its plan")
        key = _text(fields, "units")
        if self.unit_key not in ("", key):
            raise ValueError("units grouped by another key than before")
        self.unit_key = key

    def _terms(self, fields: dict[str, Any], request: PlannedRound) -> FirstCharge:
        """Reads the terms of the first charge; later charges repeat the order only."""
        order, first = _number(fields, "order"), self.spent.terms
        if first is None:
            if "most_steps" not in fields:
                return FirstCharge(order, None)
            return FirstCharge(order, _whole(fields, "most_steps"), several(request))
        if "most_steps" in fields:
            raise ValueError("most_steps: only the first charge states it")
        return replace(first, order=order)

    def _plan(self, digest: str, fields: dict[str, Any]) -> Plan:
        """The plan of a charge; the first charge of a plan states its terms."""
        if digest not in self.plans:
            plan = Plan.from_terms(fields["terms"])
            if plan.digest() != digest or plan.unit is not self.unit:
                raise ValueError("the terms differ from the plan's digest or unit")
            self.plans[digest] = plan
        return self.plans[digest]


def first_fields(budget: Budget, unit: Unit, person: str | None, key: str) -> dict[str, Any]:
    """The fields of a chain's first entry, without its time.

    Args:
        budget: For the data set's lifetime.
        unit: The unit whose presence every release hides.
        person: The column that identifies persons; None: not recorded.
        key: The site's public key in hex.
    """
    return {
        "kind": "begin",
        "epsilon": json_number(budget.epsilon),
        "delta": budget.delta,
        "unit": unit.value,
        **({} if person is None else {"person": person}),
        "neighbouring": Neighbouring.ADD_REMOVE.value,
        "key": key,
        "code": __version__,
    }


def request_of(
    plan: Plan,
    *,
    is_private: bool = True,
    before: int = 0,
    kind: ReleaseKind | None = None,
) -> PlannedRound:
    """A round of a plan, as the budget's rule sees it.

    Args:
        plan: The round's plan.
        is_private: Whether its randomness is unpredictable; rounds of one plan may differ in that.
        before: Rounds of the plan that were charged before it in its study.
        kind: Whether it is trained, the adapter after it evaluated, or units vote in it; the plan
            lists the kind. None: the first that it lists, votes or training.
    """
    kind = plan.listed[0][0] if kind is None else kind
    kinds = {release: _kind(plan, event, is_private, release) for release, event in plan.listed}
    return PlannedRound(
        plan=plan.digest(),
        kind=kinds[kind],
        steps=plan.charged_steps(before) if kind is ReleaseKind.TRAINING else 1,
        listed=tuple((kinds[release], event.steps) for release, event in plan.listed),
    )


def _kind(plan: Plan, event: GaussianEvent, is_private: bool, release: ReleaseKind) -> StepKind:
    """The kind of the steps of one of a plan's events."""
    return StepKind(
        noise_multiplier=event.noise_multiplier,
        sample_rate=event.sample_rate,
        is_private=is_private and event.is_private,
        unit=plan.unit,
        max_records=plan.max_records,
        neighbouring=plan.neighbouring,
        sharing=plan.sharing,
        release=release,
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if type(value) is not str:
        raise TypeError(f"{name}: text is needed")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if type(value) is not int or value < 0:
        raise TypeError(f"{name}: a whole number is needed")
    return value


def _number(fields: dict[str, Any], name: str) -> float:
    value = fields[name]
    if type(value) not in (int, float):
        raise TypeError(f"{name}: a number is needed")
    return float(value)
