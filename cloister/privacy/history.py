"""What a ledger's entries add up to, entry by entry."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from cloister.errors import LedgerError, UsageError
from cloister.privacy.budget import Budget, Request, Spending
from cloister.privacy.chain import Entry, Head, follow
from cloister.privacy.events import GaussianEvent
from cloister.privacy.units import Unit


@dataclass(frozen=True)
class Reserved:
    """A charged round."""

    seq: int
    plan: str
    request: str
    is_private: bool


@dataclass(frozen=True)
class ReleasedEntry:
    """A release's entry: its number and the SHA-256 of its bytes."""

    seq: int
    sha256: str


class History:
    """A ledger's state after the entries so far.

    Attributes:
        head: Of the last entry.
        budget: From the first entry.
        unit: From the first entry.
        public_key: From the first entry, in hex.
        spent: What was charged.
        rounds: Reservations by (study, round).
        released: Releases by their reservation's number.
    """

    head: Head
    budget: Budget
    unit: Unit
    public_key: str
    spent: Spending

    def __init__(self) -> None:
        self._begun = False
        self.rounds: dict[tuple[str, int], Reserved] = {}
        self.released: dict[int, ReleasedEntry] = {}
        self._reservations: set[int] = set()
        self._planned: dict[str, GaussianEvent] = {}

    def add(self, entry: Entry) -> Request | None:
        """Takes the next entry.

        Returns:
            What was charged, where the entry is a reservation; `spent` holds it already.

        Raises:
            LedgerError: The entry does not follow the last one, or does not say what it must.
        """
        head = follow([entry], self.head if self._begun else None, None)
        assert head is not None
        try:
            request = self._take(entry.fields, head)
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            raise LedgerError(f"entry {head.seq}: not readable ({error!r})") from error
        self.head = head
        return request

    def _take(self, fields: dict[str, Any], head: Head) -> Request | None:
        kind = fields["kind"]
        if (kind == "begin") is not (head.seq == 0):
            raise ValueError("the beginning is not at the beginning")
        if kind == "begin":
            limit = fields["epsilon"]
            self.budget = Budget(
                epsilon=math.inf if limit is None else float(limit), delta=float(fields["delta"])
            )
            self.unit = Unit(fields["unit"])
            self.public_key = str(fields["key"])
            self.spent = Spending()
            self._begun = True
            return None
        if kind == "reserve":
            return self._reserve(fields, head)
        if kind == "release":
            reservation = int(fields["reservation"])
            if reservation not in self._reservations or reservation in self.released:
                raise ValueError("a release without its own reservation")
            self.released[reservation] = ReleasedEntry(head.seq, str(fields["sha256"]))
            return None
        raise ValueError(f"unknown kind {kind!r}")

    def _reserve(self, fields: dict[str, Any], head: Head) -> Request:
        event = GaussianEvent(**fields["event"])
        place = (str(fields["study"]), int(fields["round"]))
        if place in self.rounds:
            raise ValueError("a round charged twice")
        plan = str(fields["plan"])
        self.rounds[place] = Reserved(head.seq, plan, str(fields["request"]), event.is_private)
        planned = replace(event, steps=int(fields["planned_steps"]))
        stated = replace(planned, is_private=True)  # a plan's rounds may differ in that alone
        if self._planned.setdefault(plan, stated) != stated:
            raise ValueError("a plan that says another thing than before")
        self._reservations.add(head.seq)
        self.spent.add(plan, event, float(fields["order"]))
        return Request(plan=plan, event=event, planned=planned)
