"""Lists the studies that asked at a site, each with its approval, and records decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cloister.client.site_file import SiteFile
from cloister.client.terms import StudyTerms, accepted_terms
from cloister.deployment.site.approvals import ApprovalState, ApprovalVerdict, judge
from cloister.deployment.site.decisions import Decision, Decisions, Kind
from cloister.deployment.site.proposed import AskedStudies
from cloister.errors import CloisterError, RefusedError


@dataclass(frozen=True)
class Listed:
    """A proposed study with the facts for the operator's decision.

    Attributes:
        study: Its digest.
        name: Its name; "" if its document cannot be read.
        asked: The time of its last question.
        state: Its state; "refused" if the policy no longer accepts it.
        why: The reason in one line.
    """

    study: str
    name: str
    asked: datetime
    state: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Returns the study as JSON values."""
        return {
            "study": self.study,
            "name": self.name,
            "state": self.state,
            "why": self.why,
            "asked": self.asked.isoformat(timespec="seconds"),
        }


def studies_of(file: SiteFile, now: datetime) -> list[Listed]:
    """Every study that asked and whose document is kept, newest first.

    Raises:
        BadFileError: The folder of documents cannot be read.
        RefusedError: The decisions cannot be read.
    """
    decisions = Decisions.of(file).read()
    asked = AskedStudies.of(file)
    return [_listed(file, asked, study, at, decisions, now) for study, at in asked.asked()]


def _listed(
    file: SiteFile,
    asked: AskedStudies,
    study: str,
    at: datetime,
    decisions: Sequence[Decision],
    now: datetime,
) -> Listed:
    name = ""
    try:
        recipe = asked.recipe(study)
        name = recipe.study.name
        verdict = judge(accepted_terms(file, recipe), decisions, now)
    except CloisterError as error:
        return Listed(study, name, at, "refused", str(error).splitlines()[0])
    return Listed(study, name, at, verdict.state.value, verdict.why)


def waiting_of(file: SiteFile, now: datetime) -> list[dict[str, Any]]:
    """The studies that wait for an approval, for a page or a status; empty if they cannot be
    read."""
    try:
        found = studies_of(file, now)
    except CloisterError:
        return []
    return [one.to_json() for one in found if one.state == ApprovalState.WAITING]


def shown(file: SiteFile, digits: str, now: datetime) -> tuple[StudyTerms, ApprovalVerdict]:
    """Returns one study that asked, with the policy's verdict and its approval.

    Args:
        file: The site's.
        digits: The first digits of its digest.
        now: The present time, with its zone.

    Raises:
        UsageError: No study has these digits, or more than one.
        RefusedError: The policy no longer accepts it; every reason.
    """
    asked = AskedStudies.of(file)
    terms = accepted_terms(file, asked.recipe(asked.find(digits)))
    return terms, judge(terms, Decisions.of(file).read(), now)


def decide(
    terms: StudyTerms, kind: Kind, name: str, now: datetime, *, login: str
) -> tuple[Decision, ApprovalVerdict]:
    """Approves or rejects a study in the name of the account that runs this.

    Args:
        terms: The shown terms.
        kind: Approval or rejection.
        name: The name that the person gives.
        now: The present time, with its zone.
        login: The account's name, which must be in `approvals.operators` if that is not empty.

    Returns:
        The written decision, and the study's state after it.

    Raises:
        RefusedError: The account's approval would not count.
        BadFileError: It cannot be written.
    """
    operators = terms.file.approvals.operators
    if kind is Kind.APPROVE and operators and login not in operators:
        raise RefusedError(
            f"approvals.operators: {login} is not one of {', '.join(operators)}; have one of them "
            "approve it, from their own account"
        )
    decisions = Decisions.of(terms.file)
    decision = decisions.add(kind, terms.study, terms.digest(), name)
    return decision, judge(terms, decisions.read(), now)
