"""Conformance of private evaluations with shared noise: shares, the unmasked sum, and charges.

A unit moves the sum by at most the bound after rounding to its grid; the rest is tested as for all
sums with shared noise (`audit.shared_releases`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.audit.audited_site import AuditedSite
from cloister.audit.evaluation_conformance import influence_checks, sides_check
from cloister.audit.secure_sums import AskedSums, secure_sums
from cloister.audit.shared_releases import SharedRelease
from cloister.audit.statistics import Check
from cloister.models.state import write_adapter
from cloister.privacy.evaluations import BOUND
from cloister.privacy.release_kind import ReleaseKind
from cloister.recipe import Recipe
from cloister.training import held_out_sum as summing

# Evaluations of the study: with a few dozen statistics enough to notice one without noise.
ASKED = 24


def shared_evaluation_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of private evaluations with shared noise.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has evaluations and shared noise.
    """
    evaluations, sharing, workspace = (
        audited.plan.evaluations,
        audited.plan.sharing,
        audited.workspace,
    )
    assert evaluations is not None
    assert sharing is not None
    listed = replace(evaluations, rounds=tuple(range(1, ASKED + 1)))
    plan = replace(audited.plan, num_rounds=ASKED, evaluations=listed)
    ((size,),) = summing.released_shapes(workspace.task).values()
    noise, adapter = plan.shared_evaluation_noise(size), workspace.whole
    influence = influence_checks(audited, noise.grid)
    write_adapter(workspace.network, adapter)
    exact = summing.held_out_sum(
        workspace.network, workspace.task, audited.units, workspace.task.max_length, noise.grid
    )
    asked = AskedSums(
        kind=ReleaseKind.EVALUATION,
        question=encode(adapter),
        other=encode(Adapter({name: value + 1 for name, value in adapter.items()})),
        values=size,
    )
    release = SharedRelease(
        what="evaluations",
        values="statistics",
        asked=asked,
        sharing=sharing,
        noise=noise,
        noise_multiplier=evaluations.noise_multiplier,
        bound=BOUND,
        exact=exact.tensors[0].double().numpy(),
    )
    return [
        sides_check(audited),
        *influence,
        *release.checks(partial(secure_sums, recipe, audited, plan, asked), ASKED),
    ]
