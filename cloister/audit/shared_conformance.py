"""Conformance of shared noise: the size and the form of a site's share.

The distribution of a share, and of the batches, is tested like other noise
(`mechanism_conformance`, `path_conformance`); the sum of all sites' shares, masks included, by
`audit.site_noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cloister.audit.secure_sums import fewest_honest
from cloister.audit.statistics import Check, exact_check
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.shapes import BatchShapes
from cloister.training.shared import shared_gradient
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

MakeEntropy = Callable[[], Entropy]


def share_checks(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy,
    shapes: BatchShapes,
) -> list[Check]:
    """Checks that shares of a full and an empty site have the plan's size and one form, and never
    repeat.

    Args:
        workspace: The study's, with its trained names set.
        units: Synthetic records, by unit.
        plan: A plan with shared noise.
        config: The `[training]` section.
        make_entropy: Makes the source of randomness.
        shapes: The proven shapes of passes.
    """
    assert plan.sharing is not None

    def gradient(site: Sequence[UnitExamples]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return shared_gradient(
            workspace.network,
            workspace.task,
            site,
            workspace.start,
            plan,
            config,
            entropy=make_entropy(),
            shapes=shapes,
        )

    full, again, empty = gradient(units), gradient(units), gradient([])
    same = full.shape == empty.shape == (workspace.start.size,)
    integers = full.dtype == again.dtype == empty.dtype == np.int64
    noise = plan.shared_noise(workspace.start.size)
    least = (
        plan.noise_multiplier * noise.bound / math.sqrt(fewest_honest(plan.sharing)) / noise.grid
    )
    return [
        Check(
            name="share",
            law="a site's share over σ·C/√(fewest honest sites), at least 1",
            figure=noise.share / least,
            low=1.0,
            high=1.01,
            is_exact=True,
        ),
        exact_check(
            "integers",
            "shares that are not integers in steps of the grid",
            0.0 if integers else 1.0,
        ),
        exact_check(
            "message form", "values that differ in number for an empty site", 0.0 if same else 1.0
        ),
        exact_check(
            "fresh noise",
            "equal shares in two runs on the same records",
            float(np.array_equal(full, again)),
        ),
    ]
