"""Decides whether a study is approved at a site, by a standing approval or by people.

    study, site.toml ──▶ rejected? ──▶ a standing approval matches? ──▶ enough people approved?
                          │ refused        │ approved                     │ yes: approved
                                                                          └ no: waits

A function of the study's document, `site.toml`, the decisions and the day: no record, no ledger.
It comes after the site's policy and before everything else: for a waiting study no base is looked
for, nothing is read and nothing charged. So the time of the answer `unapproved` depends on these
files only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cloister.bounds import listed
from cloister.client.approvals_config import ApprovalsConfig, StandingApproval
from cloister.client.terms import StudyTerms
from cloister.deployment.site.decisions import Decision, Decisions, Kind
from cloister.errors import RefusedError, UnapprovedError
from cloister.ledger.stated import of_plan
from cloister.names import counted


class ApprovalState(StrEnum):
    """Whether a study is approved at a site."""

    APPROVED = "approved"
    WAITING = "waiting"
    REJECTED = "rejected"


@dataclass(frozen=True)
class ApprovalVerdict:
    """Whether a study is approved, and why.

    Attributes:
        state: The state.
        why: The reason in one line, for the site's operator.
        by: Accounts whose approvals count.
    """

    state: ApprovalState
    why: str
    by: tuple[int, ...] = ()


def judge(terms: StudyTerms, decisions: Sequence[Decision], now: datetime) -> ApprovalVerdict:
    """Decides whether a study that the policy accepts may begin or go on.

    Args:
        terms: The study at the site.
        decisions: All decisions of the site, in order.
        now: The present time, with its zone.

    Guarantees:
        A rejection by any account ends all earlier approvals and overrides standing approvals. An
        approval covers one digest of a study with one digest of terms. At least `approvals.needed`
        accounts must have approved since; an account counts once.
    """
    config = terms.file.approvals
    about = [one for one in decisions if one.study == terms.study]
    rejected = [number for number, one in enumerate(about) if one.kind is Kind.REJECT]
    since = about[rejected[-1] + 1 :] if rejected else about
    by = _counting(config, terms.digest(), since, now)
    people = ", ".join(one.who for one in by.values())
    if len(by) >= config.needed:
        return ApprovalVerdict(ApprovalState.APPROVED, f"approved by {people}", tuple(by))
    if rejected:
        no = about[rejected[-1]]
        if not by:
            return ApprovalVerdict(ApprovalState.REJECTED, f"rejected by {no.who}, {no.time}")
    else:
        for number, one in enumerate(config.standing, 1):
            if not unmet(one, terms, now):
                return ApprovalVerdict(
                    ApprovalState.APPROVED, f"matches approvals.standing {number}"
                )
    missing = counted(config.needed - len(by), "person")
    why = f"approved by {people}; {missing} more must" if by else f"{missing} must approve it"
    return ApprovalVerdict(
        ApprovalState.WAITING, why.replace("persons", "people") + _ended(since), tuple(by)
    )


def _ended(approvals: Sequence[Decision]) -> str:
    """Explains why an earlier approval no longer counts."""
    if not approvals:
        return ""
    return "; an earlier approval does not count: site.toml has other terms now, or it has expired"


def _counting(
    config: ApprovalsConfig, terms: str, approvals: Sequence[Decision], now: datetime
) -> dict[int, Decision]:
    """Returns the approvals that count, by account."""
    return {
        one.uid: one
        for one in approvals
        if one.terms == terms
        and (not config.operators or one.login in config.operators)
        and _lasts(config, one, now)
    }


def _lasts(config: ApprovalsConfig, one: Decision, now: datetime) -> bool:
    if config.days is None:
        return True
    age = now - datetime.fromisoformat(one.time)
    return timedelta(0) <= age < timedelta(days=config.days)


def unmet(standing: StandingApproval, terms: StudyTerms, now: datetime) -> list[str]:
    """The conditions of a standing approval that a study does not meet, in words; empty if it
    matches.

    Args:
        standing: The approval.
        terms: The study at the site.
        now: The present time, with its zone.
    """
    recipe, plan = terms.recipe, terms.plan
    declared = terms.file.records.labels if terms.file.records is not None else ()
    allowed = declared if standing.labels is None else standing.labels
    more = [label for label in recipe.task.labels if label not in allowed]
    said = []
    if now.astimezone(UTC).date() > standing.until:
        said.append(f"until: ended after {standing.until}")
    if recipe.model.sha256 not in standing.base_sha256:
        said.append("base_sha256: another base")
    if recipe.task.kind not in standing.tasks:
        said.append(f"tasks: {recipe.task.kind} is not one of them")
    if plan.unit is not standing.unit:
        said.append(f"unit: {plan.unit} here, {standing.unit} needed")
    if plan.sharing is not None and not standing.shared_noise:
        said.append("shared_noise: shared with other sites here")
    if plan.votes is not None and not standing.votes:
        said.append("votes: a study of votes here")
    if more:
        said.append(f"labels: {listed(more)} in addition")
    if plan.num_rounds > standing.max_rounds:
        said.append(f"max_rounds: {plan.num_rounds} here, {standing.max_rounds} at most")
    if not said and of_plan(plan).epsilon > standing.max_epsilon:  # takes longest
        said.append(f"max_epsilon: {of_plan(plan).short} here, {standing.max_epsilon:g} at most")
    return said


def check_approved(terms: StudyTerms) -> ApprovalVerdict:
    """Returns the verdict on a study that is approved now; raises for any other.

    Raises:
        UnapprovedError: It waits for an approval.
        RefusedError: It was rejected, or the decisions cannot be read.
    """
    verdict = judge(terms, Decisions.of(terms.file).read(), datetime.now(UTC))
    if verdict.state is ApprovalState.WAITING:
        raise UnapprovedError(
            f"study {terms.study[:12]} ({terms.recipe.study.name}) waits: {verdict.why}; cloister "
            f"site studies show {terms.file.path} {terms.study[:12]}"
        )
    if verdict.state is ApprovalState.REJECTED:
        raise RefusedError(
            f"study {terms.study[:12]} ({terms.recipe.study.name}): {verdict.why}; cloister site "
            f"studies approve {terms.file.path} {terms.study[:12]} reverses that"
        )
    return verdict
