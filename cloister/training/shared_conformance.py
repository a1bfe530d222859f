"""Conformance where noise is shared: a site's share of it, on the grid of the sum.

What all sites' shares come to, masks and all, is looked at by `simulation.site_noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from cloister.models.network import trained_parameters
from cloister.privacy.clipping import empty_sum
from cloister.privacy.entropy import Entropy
from cloister.privacy.laws import LEVEL, Check, noise_checks
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.shared import shared_gradient
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

MakeEntropy = Callable[[], Entropy]


def share_checks(
    workspace: Workspace, plan: Plan, make_entropy: MakeEntropy, coordinates: int
) -> list[Check]:
    """A share of the noise, drawn for empty batches.

    Args:
        workspace: Its trained names already set.
        plan: Its noise is shared.
        make_entropy: Where randomness comes from.
        coordinates: How many are looked at, at least.
    """
    parameters = [p for _, p in trained_parameters(workspace.network)]
    values = sum(p.numel() for p in parameters)
    noise = plan.shared_noise(values)
    steps = max(4, -(-coordinates // values))
    gate = Mechanism(replace(plan, local_steps=steps), make_entropy())
    shares = []
    for _ in range(steps):
        gate.draw(0)
        shares.append(gate.release_share(empty_sum(parameters, noise.bound, noise.grid)))
    assert plan.sharing is not None
    least = plan.noise_multiplier * noise.bound / math.sqrt(plan.sharing.honest) / noise.grid
    return [
        *noise_checks([share.astype(np.float64) for share in shares], noise.share),
        Check(name="grid", law="shares that are no integers in steps of the grid",
              figure=float(any(share.dtype != np.int64 for share in shares)), low=0.0, high=0.0),
        Check(name="share", law="a site's share over σ·C/√(fewest honest sites), at least 1",
              figure=noise.share / least, low=1.0, high=1.01),
    ]  # fmt: skip


def share_messages(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy,
) -> list[Check]:
    """Shares of a full and an empty site: of one form, noised as the plan says, never repeated."""

    def gradient(
        site: Sequence[UnitExamples], of: Plan
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return shared_gradient(
            workspace.network, workspace.task, site, workspace.start, of, config,
            entropy=make_entropy(),
        )  # fmt: skip

    full, again, empty = gradient(units, plan), gradient(units, plan), gradient([], plan)
    same = full.shape == empty.shape == (workspace.start.size,)
    # So loud that the records do not show in it.
    loud = replace(plan, noise_multiplier=1e4, max_grad_norm=1e-3)
    every = gradient(units, loud) / loud.shared_noise(len(full)).share
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], len(every))
    return [
        Check(name="update noise", law="noise of a whole share over the plan's (χ²)",
              figure=float(np.sqrt(np.square(every).mean())),
              low=math.sqrt(low / len(every)), high=math.sqrt(high / len(every))),
        Check(name="message form", law="values that differ in number for an empty site",
              figure=0.0 if same else 1.0, low=0.0, high=0.0),
        Check(name="fresh noise", law="equal shares in two runs on the same records",
              figure=float(np.array_equal(full, again)), low=0.0, high=0.0),
    ]  # fmt: skip
