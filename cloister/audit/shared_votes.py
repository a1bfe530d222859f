"""Conformance of votes with shared noise: shares, the unmasked counts, answers and charges.

A unit moves the sum by at most 1 after rounding to its grid; the rest is tested as for all sums
with shared noise (`audit.shared_releases`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from cloister.audit.audited_site import AuditedSite
from cloister.audit.secure_sums import AskedSums, secure_sums
from cloister.audit.shared_releases import SharedRelease
from cloister.audit.statistics import Check
from cloister.audit.vote_conformance import ballot_for, vote_influence, with_candidates
from cloister.models.state import write_adapter
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import BOUND
from cloister.protocol.candidates import encode_candidates
from cloister.recipe import Recipe
from cloister.training import vote_sum as summing

# Rounds of the study: with a few dozen counts enough to notice one without noise.
ASKED = 24


def shared_vote_checks(recipe: Recipe, audited: AuditedSite, plan: Plan) -> list[Check]:
    """Tests the assumptions of a study of votes whose noise is shared.

    Args:
        recipe: The study.
        audited: A site with synthetic records.
        plan: The study's plan.
    """
    sharing, workspace = plan.sharing, audited.workspace
    assert sharing is not None
    candidates = ballot_for(audited, plan)
    plan = replace(with_candidates(plan, len(candidates)), num_rounds=ASKED)
    noise = plan.shared_vote_noise()
    influence = vote_influence(audited, candidates, noise.grid)
    write_adapter(workspace.network, workspace.start)
    exact = summing.vote_sum(
        workspace.network, workspace.task, audited.units, candidates, noise.grid
    )
    first, *rest = candidates
    asked = AskedSums(
        kind=ReleaseKind.VOTE,
        question=encode_candidates(candidates),
        other=encode_candidates([replace(first, text=f"{first.text} x"), *rest]),
        values=len(candidates),
    )
    release = SharedRelease(
        what="votes",
        values="counts",
        asked=asked,
        sharing=sharing,
        noise=noise,
        noise_multiplier=plan.noise_multiplier,
        bound=BOUND,
        exact=exact.tensors[0].double().numpy(),
    )
    return [
        *influence,
        *release.checks(partial(secure_sums, recipe, audited, plan, asked), ASKED),
    ]
