"""The frozen-step audit: one step of the production path, many times, with and without a canary.

The canary contributes exactly C along one direction, the most that a unit may. The path draws the
batch, sums and adds noise. The attack knows everything except the noise and the draw, and scores a
release by its log-likelihood ratio. Trials are independent by construction, so the confidence
bounds are exact (Nasr et al. 2023, arXiv:2302.07956, audit such a step; here the claim's own
trade-off curve is tested).
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
        plan: A private plan; one of its steps is judged.
        coordinates: Trained parameters of the message.
        trials: Number of runs with the canary, and of runs without it.
        make_entropy: Makes the source of randomness; another one than the default tests the
            auditor.
    """
    assert plan.max_grad_norm is not None
    bound = plan.max_grad_norm
    direction = torch.zeros(coordinates)
    direction[: min(coordinates, 64)] = 1.0  # over several coordinates, like a gradient
    direction /= direction.norm()
    mechanism = ReleasedSum(replace(plan, local_steps=2 * trials), make_entropy())
    grid = mechanism.grid(coordinates)
    # Norm 10·C, so that the attack also exercises clipping.
    canary = clip_and_sum([(10 * bound * direction)[None]], bound, grid)
    nothing = empty_sum([direction], bound, grid)

    def outcome(unit_is_there: bool) -> float:
        drawn = len(mechanism.draw(1 if unit_is_there else 0)) > 0
        released = mechanism.release(canary if drawn else nothing)[0]
        return float(released.double() @ direction.double()) / bound

    absent = np.array([outcome(False) for _ in range(trials)])
    present = np.array([outcome(True) for _ in range(trials)])
    return judge(likelihood_ratio(absent, plan), likelihood_ratio(present, plan), plan.event(1))


def likelihood_ratio(outcomes: NDArray[np.float64], plan: Plan) -> NDArray[np.float64]:
    """log(1 − q + q·exp((2x − 1)/2σ²)) for releases x along the canary, in units of the bound."""
    exponent = (2 * outcomes - 1) / (2 * plan.noise_multiplier**2)
    rate = plan.sample_rate
    ratio: NDArray[np.float64] = np.log1p(rate * np.expm1(exponent))
    return ratio
