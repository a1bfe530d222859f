"""Conformance of votes with shared noise: shares, the unmasked counts, answers and charges.

A unit moves the sum by at most 1 after rounding to its grid; the rest is tested as for all sums
with shared noise (`audit.shared_releases`).
"""

from __future__ import annotations

from cloister.audit.audited_site import AuditedSite
from cloister.audit.shared_releases import shared_checks
from cloister.audit.statistics import Check
from cloister.audit.vote_conformance import ballot_for, vote_influence, votes_of, with_candidates
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe


def shared_vote_checks(recipe: Recipe, audited: AuditedSite, plan: Plan) -> list[Check]:
    """Tests the assumptions of a study of votes whose noise is shared.

    Args:
        recipe: The study.
        audited: A site with synthetic records.
        plan: The study's plan.
    """
    candidates = ballot_for(audited, plan)
    plan = with_candidates(plan, len(candidates))
    noise = plan.shared_vote_noise()
    return [
        *vote_influence(audited, candidates, noise.grid),
        *shared_checks(recipe, audited, plan, votes_of(audited, plan, candidates), noise),
    ]
