"""Conformance of votes: what one unit can change, for whom it votes, noise, charge and their order.

The accountant counts one Gaussian release at rate 1 for each round, of sensitivity 1. That holds if
a unit's votes are a function of it and the candidates alone, of norm at most 1, and if noise,
answers and charges are as of all releases with noise of a site's own (`audit.own_releases`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cloister.audit.asked import AskedReleases, UnitSum
from cloister.audit.audited_site import AuditedSite
from cloister.audit.own_releases import own_checks
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.audit.unit_influence import UnitInfluence, values_of
from cloister.data.records import TextRecord
from cloister.models.network import Network
from cloister.models.state import write_adapter
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import BOUND, FEWEST, votes_shapes
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.recipe import Recipe
from cloister.training import vote_sum as summing
from cloister.training.numerics import pinned
from cloister.training.units import UnitExamples

# Most candidates that are audited: every round computes each one's vector.
MOST_AUDITED = 64
# Lengths of votes that are beyond any bound, and how many of them.
LONG, LONGS = 50.0, 40


def vote_checks(recipe: Recipe, audited: AuditedSite, plan: Plan) -> list[Check]:
    """Tests the assumptions of a study of votes.

    Args:
        recipe: The study's sections but `[votes]`.
        audited: A site with synthetic records.
        plan: The study's plan.
    """
    candidates = ballot_for(audited, plan)
    plan = with_candidates(plan, len(candidates))
    return [
        *vote_influence(audited, candidates),
        *own_checks(recipe, audited, plan, votes_of(audited, plan, candidates)),
    ]


def votes_of(audited: AuditedSite, plan: Plan, candidates: Sequence[CandidateText]) -> UnitSum:
    """Returns the release of one round of votes.

    Args:
        audited: A site with synthetic records.
        plan: A plan of votes for so many candidates.
        candidates: The candidates.
    """
    workspace = audited.workspace

    def exact(units: Sequence[UnitExamples], grid: float | None) -> ClippedSum:
        write_adapter(workspace.network, workspace.start)
        return summing.vote_sum(workspace.network, workspace.task, units, candidates, grid)

    first, *rest = candidates
    return UnitSum(
        what="votes",
        values="counts",
        asked=AskedReleases(
            kind=ReleaseKind.VOTE,
            question=encode_candidates(candidates),
            other=encode_candidates([replace(first, text=f"{first.text} x"), *rest]),
            values=len(candidates),
        ),
        shapes=votes_shapes(len(candidates)),
        noise_multiplier=plan.noise_multiplier,
        bound=BOUND,
        exact=exact,
    )


def ballot_for(audited: AuditedSite, plan: Plan) -> list[CandidateText]:
    """Returns candidates for an audit: the records' own texts, so that votes are spread; repeated,
    so that some are tied.

    Args:
        audited: A site with synthetic records.
        plan: A plan of votes.
    """
    assert plan.votes is not None
    count = max(FEWEST, min(plan.votes, MOST_AUDITED))
    texts = [record for record in audited.records if isinstance(record, TextRecord)]
    chosen = [texts[place % len(texts)] for place in range(count)]
    return [CandidateText(one.text, one.label) for one in chosen]


def with_candidates(plan: Plan, count: int) -> Plan:
    """Returns a plan of votes for another number of candidates."""
    return replace(plan, votes=count, message=tuple(votes_shapes(count).items()))


def vote_influence(
    audited: AuditedSite, candidates: Sequence[CandidateText], grid: float | None = None
) -> list[Check]:
    """Leaves out each unit in turn, compares its votes with those by hand, and clips long ones.

    Args:
        audited: A site with synthetic records.
        candidates: The candidates.
        grid: The grid of a sum with shared noise; None: that of the bound.
    """
    workspace, units = audited.workspace, audited.units
    write_adapter(workspace.network, workspace.start)

    def total(network: Network, of: Sequence[UnitExamples]) -> ClippedSum:
        return summing.vote_sum(network, workspace.task, of, candidates, grid)

    found = UnitInfluence.measured(total, workspace.network, units)
    vectors = [_unit_vector(audited, candidate) for candidate in candidates]
    wrong = sum(
        not np.allclose(
            values_of(own) * own.grid, _by_hand(audited, unit, candidates, vectors), atol=1e-4
        )
        for unit, own in zip(units, found.alone, strict=True)
    )
    longest, rng = found.longest, np.random.default_rng(0)
    for _ in range(LONGS):
        clipped = summing.clipped_votes(rng.normal(0, LONG, (1, len(candidates))), grid)
        longest = max(longest, float(np.linalg.norm(values_of(clipped))) * clipped.grid)
    return [
        exact_check(
            "influence of a voting unit",
            "largest norm of what one unit adds to the counts, over the bound",
            longest / BOUND,
            1.0,
        ),
        exact_check(
            "votes of a unit",
            "units whose votes are not for the nearest candidates of their labels, by hand",
            wrong,
        ),
        *found.checks("voting unit", total, workspace.network, units, summing.BLOCK),
    ]


def _unit_vector(audited: AuditedSite, candidate: CandidateText) -> Floats:
    return _vector_of(audited, audited.workspace.task.encode(TextRecord(*_fields(candidate))))


def _fields(candidate: CandidateText) -> tuple[str, str]:
    return candidate.text, candidate.label


def _vector_of(audited: AuditedSite, example: Any) -> Floats:
    network = audited.workspace.network
    with torch.no_grad(), network.apart(keeping=False), pinned():
        pooled = network.pooled(audited.workspace.task.collate([example]))
    vector: Floats = pooled[0].double().cpu().numpy()
    return vector / np.linalg.norm(vector)


def _by_hand(
    audited: AuditedSite,
    unit: UnitExamples,
    candidates: Sequence[CandidateText],
    vectors: Sequence[Floats],
) -> Floats:
    """Returns a unit's votes by the definition: every candidate is compared with every record."""
    votes, labels = np.zeros(len(candidates)), audited.workspace.task.labels
    for example in unit:
        own, best, nearest = _vector_of(audited, example), -2.0, -1
        for place, candidate in enumerate(candidates):
            if labels.index(candidate.label) != example.target:
                continue
            cosine = float((own * vectors[place]).sum())
            if cosine > best:
                best, nearest = cosine, place
        if nearest >= 0:
            votes[nearest] += 1
    shared: Floats = votes / max(votes.sum(), 1.0)
    return shared
