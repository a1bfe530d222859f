"""Computes ε by Opacus' PRV accountant, with each event's Rényi orders computed once.

The accountant (Gopi et al. 2021, arXiv:2106.02848) takes the bounds of its grid from Rényi DP, for
all steps and for a single one, and computes every order again for each. That is half of its time at
usual rates, and most of it if noise and rate are large. This file repeats the accountant's steps in
the same order with its own functions, so the result has the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from cloister.privacy.pld import Composition

# As in `PRVAccountant.get_epsilon`: the allowed error in ε, and δ over the allowed error in δ.
EPSILON_ERROR, DELTA_PARTS = 0.01, 1000


def prv_upper_bound(composition: Composition, delta: float) -> float:
    """Returns the upper bound on ε that `PRVAccountant.get_epsilon` returns.

    Args:
        composition: Noise multiplier, sampling rate and steps of each event.
        delta: δ of the guarantee.

    Raises:
        ValueError, RuntimeError, OverflowError, FloatingPointError, MemoryError: It does not
            converge.
    """
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        discretize,
    )

    error = delta / DELTA_PARTS
    counts = [steps for *_, steps in composition]
    half = _half_width(composition, error)
    mesh = EPSILON_ERROR / np.sqrt(sum(counts) * np.log(12 / error) / 2)
    grid = Domain.create_aligned(-half, half, mesh)
    variables = [
        TruncatedPrivacyRandomVariable(
            PoissonSubsampledGaussianPRV(rate, noise), grid.t_min, grid.t_max
        )
        for noise, rate, _ in composition
    ]
    whole = compose_heterogeneous(
        dprvs=[discretize(variable, grid) for variable in variables], num_self_compositions=counts
    )
    _, _, bound = whole.compute_epsilon(delta, error, EPSILON_ERROR)
    return float(bound)


def _half_width(composition: Composition, error: float) -> float:
    """`compute_safe_domain_size` (Gopi et al., remark 5.6)."""
    count = sum(steps for *_, steps in composition)
    whole: Any = sum(_orders(noise, rate) * steps for noise, rate, steps in composition)
    widest = _spent(whole, error / 4)
    for noise, rate, _ in composition:
        widest = max(widest, _spent(_orders(noise, rate), error / (8 * count)))
    return max(widest, EPSILON_ERROR) + 3


@lru_cache(maxsize=256)
def _orders(noise: float, rate: float) -> Any:
    """Rényi DP of one step at each of Opacus' orders."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = RDPAccountant.DEFAULT_ALPHAS
    return compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders)


def _spent(rdp: Any, delta: float) -> float:
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    bound, _ = get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=rdp, delta=delta)
    return float(bound)
