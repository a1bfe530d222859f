"""The frozen-step audit: one step of the production path, many times, with and without a canary.

The canary contributes exactly C along one direction, the most that a unit may. The path draws the
batch, sums, adds noise; the attack knows everything but the noise and the draw, and scores a
release by its log-likelihood ratio. Trials are independent by construction, so the confidence
bounds are exact (Nasr et al. 2023, arXiv:2302.07956, audit such a step; here it is the claim's own
curve that is tested).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.audit.lower_bounds import Finding, judge
from cloister.audit.released_sum import ReleasedSum
from cloister.privacy.clipping import clip_and_sum, empty_sum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.plan import Plan

MakeEntropy = Callable[[], Entropy]


def audit_step(
    plan: Plan, coordinates: int, trials: int, make_entropy: MakeEntropy = OsEntropy
) -> Finding:
    """Attacks one step of a plan.

    Args:
        plan: A private plan; what is judged is one of its steps.
        coordinates: Trained parameters of the message.
        trials: Runs with the canary, and as many without.
        make_entropy: Where randomness comes from; production's unless the auditor tests itself.
    """
    assert plan.max_grad_norm is not None
    bound = plan.max_grad_norm
    direction = torch.zeros(coordinates)
    direction[: min(coordinates, 64)] = 1.0  # over several coordinates, as gradients lie
    direction /= direction.norm()
    gate = ReleasedSum(replace(plan, local_steps=2 * trials), make_entropy())
    grid = gate.grid(coordinates)
    # Norm 10·C, so that the attack also exercises clipping.
    canary = clip_and_sum([(10 * bound * direction)[None]], bound, grid)
    nothing = empty_sum([direction], bound, grid)

    def outcome(unit_is_there: bool) -> float:
        drawn = len(gate.draw(1 if unit_is_there else 0)) > 0
        released = gate.release(canary if drawn else nothing)[0]
        return float(released.double() @ direction.double()) / bound

    absent = np.array([outcome(False) for _ in range(trials)])
    present = np.array([outcome(True) for _ in range(trials)])
    return judge(likelihood_ratio(absent, plan), likelihood_ratio(present, plan), plan.event(1))


def likelihood_ratio(outcomes: NDArray[np.float64], plan: Plan) -> NDArray[np.float64]:
    """log(1 − q + q·exp((2x − 1)/2σ²)) of releases x along the canary, in bounds."""
    exponent = (2 * outcomes - 1) / (2 * plan.noise_multiplier**2)
    rate = plan.sample_rate
    ratio: NDArray[np.float64] = np.log1p(rate * np.expm1(exponent))
    return ratio
