"""Computes Rényi differential privacy, which cross-checks ε and which the budget's filter sums.

Mironov 2017, arXiv:1702.07476; of subsampled Gaussians: Mironov, Talwar, Zhang 2019,
arXiv:1908.10530; converted to (ε, δ) by Canonne, Kamath, Steinke 2020, arXiv:2004.00010, Prop. 12.
"""

from __future__ import annotations

import math
from functools import lru_cache

from cloister.privacy.divergences import divergences
from cloister.privacy.events import MOST_NOISE, GaussianEvent
from cloister.privacy.pld import Composition

# The series for one order is computed in float64; its relative error stays far below this
# (dp-accounting tests it against 50 digits to 1e-6).
ROUNDED_UP = 1 + 1e-6


@lru_cache(maxsize=4096)
def rdp_epsilon(composition: Composition, delta: float, *, whole: bool = False) -> float:
    """Computes ε at the best of dp-accounting's orders.

    Args:
        composition: (noise multiplier, sample rate, steps) of each mechanism.
        delta: δ of the guarantee.
        whole: Whether only orders that are whole numbers are tried: looser, and quicker.

    Returns:
        An upper bound on ε per unit added or removed; ∞ if no order converges.
    """
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS, compute_epsilon

    orders = [order for order in DEFAULT_RDP_ORDERS if not whole or order == int(order)]
    total = [0.0] * len(orders)
    for noise_multiplier, sample_rate, steps in composition:
        one = divergences(noise_multiplier, sample_rate, tuple(orders))
        total = [so_far + steps * more for so_far, more in zip(total, one, strict=True)]
    found, _ = compute_epsilon(orders, total, delta)
    return float(found)


def rdp_at(event: GaussianEvent, order: float) -> float:
    """Computes the Rényi divergence of all the event's steps at one order, rounded up.

    Args:
        event: The releases.
        order: α, above 1.

    Guarantees:
        Never below the exact divergence under adding or removing one unit; ∞ if the event is not
        private or its series does not converge.
    """
    if event.steps == 0 or event.sample_rate == 0:
        return 0.0
    if not event.is_private or not 0 < event.noise_multiplier <= MOST_NOISE:
        return math.inf
    (one,) = divergences(event.noise_multiplier, event.sample_rate, (order,))
    return one * event.steps * ROUNDED_UP


def rdp_budget(epsilon: float, delta: float, order: float) -> float:
    """Returns the largest divergence at one order that converts to at most (ε, δ).

    It is negative if no divergence at this order does (Canonne et al. 2020, proposition 12).
    """
    return epsilon - math.log1p(-1 / order) + (math.log(delta) + math.log(order)) / (order - 1)
