"""Composes a privacy loss distribution with itself; reads δ and ε from it: dp-accounting, but fast.

dp-accounting bounds the support of a composition by forty moments, each a `logsumexp` over the
whole grid, which takes longer than the composition itself. Here the moments are sums of powers, and
each power is computed from the previous one. dp-accounting computes ε at a δ, and δ at many ε, in a
Python loop; here they follow from two running sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Constants of `dp_accounting.pld.common.compute_self_convolve_bounds` and `PLDPmf.self_compose`:
# orders of the Chernoff bound, divided by the number of grid points; and the largest mass outside
# of the bound, which counts as an infinite loss.
ORDERS, TRUNCATED = 20, 1e-15


def self_composed(one: Any, times: int) -> Any:
    """Composes a pessimistic distribution with itself.

    Args:
        one: dp-accounting's `PrivacyLossDistribution`.
        times: Number of steps, at least 1.

    Guarantees:
        Equals `one.self_compose(times)`, except that the last bits of a moment may move an end of
        the support by one grid point, beyond which less than `TRUNCATED` of the mass lies.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    return PrivacyLossDistribution(*(_composed(side, times) for side in _sides(one)))


def deltas_at(distribution: Any, epsilons: Sequence[float]) -> Floats:
    """Computes δ at each ε ≥ 0: the larger one of adding and removing a unit.

    Guarantees:
        Equals `distribution.get_delta_for_epsilon` up to the last bits of floats.
    """
    at = np.asarray(epsilons, dtype=np.float64)
    found = [_deltas(side.to_dense_pmf(), at) for side in _sides(distribution)]
    larger: Floats = np.max(found, axis=0)
    return larger


def epsilon_at(distribution: Any, delta: float) -> float:
    """Computes the smallest ε whose δ is at most `delta`, for adding and for removing a unit.

    Returns:
        The larger ε of both; ∞ where more than `delta` lies at infinite losses, or where a
        probability is not a number.

    Guarantees:
        The result of `distribution.get_epsilon_for_delta`, up to rounding.
    """
    return max(_epsilon(side.to_dense_pmf(), delta) for side in _sides(distribution))


def _sides(distribution: Any) -> tuple[Any, ...]:
    """Returns the losses of removing and of adding a unit; only one if they are the same."""
    removing, adding = distribution._pmf_remove, distribution._pmf_add
    return (removing,) if adding is removing else (removing, adding)


def _deltas(side: Any, epsilons: Floats) -> Floats:
    losses = (np.arange(len(side._probs)) + side._lower_loss) * side._discretization
    # Skip losses below 0: none is above an ε, and exp would overflow there.
    lower = side._probs * np.exp(-np.maximum(losses, 0.0))
    above = [np.append(np.cumsum(mass[::-1])[::-1], 0.0) for mass in (side._probs, lower)]
    first = np.searchsorted(losses, epsilons, side="right")
    found: Floats = side._infinity_mass + above[0][first] - np.exp(epsilons) * above[1][first]
    return np.clip(found, 0.0, 1.0)


def _epsilon(side: Any, delta: float) -> float:
    # NaN compares false with everything, so it would pass for ε = 0.
    if side._infinity_mass > delta or not math.isfinite(side._infinity_mass + side._probs.sum()):
        return math.inf
    # From the largest loss down to 0. What is below 0 changes no ε: it counts only where
    # δ(0) ≤ `delta`, and ε is then 0.
    points = np.arange(len(side._probs) - 1, max(-side._lower_loss, 0) - 1, -1)
    losses = (points + side._lower_loss) * side._discretization
    mass = side._probs[points]
    above = np.cumsum(np.concatenate([[side._infinity_mass], mass]))
    lower = np.cumsum(np.concatenate([[0.0], mass * np.exp(-losses)]))
    # Between two points δ(ε) = above - e^ε · lower, with all points from the upper one on: it is
    # `delta` at `crossed`, if that lies above the lower one.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        crossed = np.log((above - delta) / lower)
    ended = np.append(crossed[:-1] >= losses, True) & (above > delta) & (lower > 0)
    ended[-1] = True
    end = int(np.argmax(ended))
    # Where e^-loss is 0 in floats, all of `delta` may lie at one loss.
    vast = (above[1 : end + 1] >= delta) & (lower[1 : end + 1] == 0)
    if vast.any():
        return float(losses[np.argmax(vast)])
    return 0.0 if above[end] <= lower[end] + delta else float(crossed[end])


def _composed(side: Any, times: int) -> Any:
    from dp_accounting.pld.pld_pmf import DensePLDPmf
    from scipy import fft

    if not isinstance(side, DensePLDPmf):
        return side.self_compose(times, TRUNCATED)
    probabilities = side._probs
    low, high = _bounds(probabilities, times)
    size = high - low + 1
    points = fft.next_fast_len(max(size, len(probabilities)))
    whole = np.real(fft.ifft(fft.fft(probabilities, points) ** times))
    infinite = TRUNCATED - math.expm1(times * math.log1p(-side._infinity_mass))
    first = side._lower_loss * times + low
    return DensePLDPmf(side._discretization, first, np.roll(whole, -low)[:size], infinite, True)


def _bounds(probabilities: Floats, times: int) -> tuple[int, int]:
    """Returns the first and last grid point; outside lies at most `TRUNCATED` (Chernoff bound)."""
    count = len(probabilities)
    low, high = 0, (count - 1) * times
    factor = np.exp(np.arange(count) / count)
    rising = falling = probabilities
    for order in range(1, ORDERS + 1):
        rising, falling = rising * factor, falling / factor
        above, below = (
            (times * math.log(moments.sum()) + math.log(2 / TRUNCATED)) * count / order
            for moments in (rising, falling)
        )
        high, low = min(high, math.ceil(above)), max(low, math.floor(-below))
    return low, high
