"""Conformance of private evaluations with shared noise: shares, the unmasked sum, and charges.

A unit moves the sum by at most the bound after rounding to its grid; the rest is tested as for all
sums with shared noise (`audit.shared_releases`).
"""

from __future__ import annotations

from cloister.audit.audited_site import AuditedSite
from cloister.audit.evaluation_conformance import evaluation_of, influence_checks, sides_check
from cloister.audit.shared_releases import shared_checks
from cloister.audit.statistics import Check
from cloister.recipe import Recipe


def shared_evaluation_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of private evaluations with shared noise.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations and shared noise.
    """
    released, plan = evaluation_of(audited), audited.plan
    noise = plan.shared_evaluation_noise(released.asked.values)
    return [
        sides_check(audited),
        *influence_checks(audited, noise.grid),
        *shared_checks(recipe, audited, plan, released, noise),
    ]
