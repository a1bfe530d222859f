"""The facts of one site on a card, taken from its certificate, not from the coordinator's plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister.evidence.certificate_alone import plans_in
from cloister.ledger.stated import Stated
from cloister.privacy.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SiteFacts:
    """The promise to a site, and what it spent, by its own ledger.

    Attributes:
        promise: The ε of its whole plan, or of its data set's budget.
        promise_alone: The same against all other sites together; None: the same as `promise`.
        spent: ε of the study's rounds so far; an indication.
        plans: The plans that the site ran, tightened by its own policy.
        rounds: Number of charged rounds.
        ended: The head of its ledger, in words.
        couples_units: Whether ε is about the units of its file as it was written.
        lifetime: ε of all that its ledger charged, in every study; an indication. None: not known.
        key: The public key of its ledger in hex; None: not stated.
    """

    promise: Stated
    promise_alone: Stated | None
    spent: Stated
    plans: tuple[Plan, ...]
    rounds: int
    ended: str
    couples_units: bool = False
    lifetime: Stated | None = None
    key: str | None = None


def site_facts(fields: Mapping[str, Any]) -> SiteFacts:
    """Makes a site's facts from a checked certificate, or from a ledger's statement.

    Raises:
        ValueError: The fields do not have that form.
    """
    alone, head = fields["promise_alone"], fields["ledger"]
    return SiteFacts(
        promise=Stated.from_json(fields["promise"]),
        promise_alone=None if alone is None else Stated.from_json(alone),
        spent=Stated.from_json(fields["spent"]),
        plans=tuple(plans_in(fields)),
        rounds=fields["rounds"],
        ended=f"entry {head['seq']}, SHA-256 `{head['hash']}`",
        couples_units=fields.get("couples_units") is True,
        lifetime=Stated.from_json(fields["life"]["spent"]),
        key=fields.get("key"),
    )
