"""Computes the privacy loss distribution of one step, with dp-accounting's formulas as arrays.

dp-accounting inverts the privacy loss at each grid point in a Python loop, which takes most of the
time of an ε. Here the same formulas are evaluated for all points at once. Truncation and the
connection of points are left to dp-accounting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

Floats = NDArray[np.float64]


def one_step(noise_multiplier: float, sample_rate: float, grid: float) -> Any:
    """Makes the distribution of one Poisson-subsampled Gaussian release of sensitivity 1.

    Args:
        noise_multiplier: Deviation of the noise.
        sample_rate: Probability with which a unit is drawn, in (0, 1].
        grid: Width of the distribution's grid.

    Returns:
        dp-accounting's `PrivacyLossDistribution`, pessimistic, for adding and for removing a unit.

    Guarantees:
        Equals what `from_gaussian_mechanism` returns for the same values, up to the last bits.
    """
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap as connect
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    made = []
    for adjacency in (AdjacencyType.REMOVE, AdjacencyType.ADD)[: 1 if sample_rate == 1 else 2]:
        loss = GaussianPrivacyLoss(
            noise_multiplier, sampling_prob=sample_rate, adjacency_type=adjacency
        )
        bounds = loss.connect_dots_bounds()
        low, high = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
        deltas = _deltas(loss, np.arange(low, high + 1) * grid, adjacency is AdjacencyType.REMOVE)
        made.append(connect(grid, low, high, deltas))
    return PrivacyLossDistribution(*made)


def _deltas(loss: GaussianPrivacyLoss, epsilons: Floats, removes: bool) -> Floats:
    """Computes δ at each ε with the formula of `GaussianPrivacyLoss.get_delta_for_epsilon`."""
    rate = loss.sampling_prob
    if rate == 1:
        inside, deltas = np.ones(len(epsilons), dtype=bool), np.zeros(len(epsilons))
    elif removes:  # no loss is below log(1 - q): there δ is 1 - e^ε
        inside, deltas = epsilons > math.log1p(-rate), -np.expm1(np.minimum(epsilons, 0))
    else:  # no loss is above -log(1 - q)
        inside, deltas = epsilons < -math.log1p(-rate), np.zeros(len(epsilons))
    losses = epsilons[inside]
    points = _inverse(losses, loss.standard_deviation, rate, removes)
    deltas[inside] = loss.mu_upper_cdf(points) - np.exp(losses + loss.mu_lower_log_cdf(points))
    return np.clip(deltas, 0.0, 1.0)


def _inverse(losses: Floats, deviation: float, rate: float, removes: bool) -> Floats:
    """Returns the largest points at which the loss is at least each value within its range."""
    sign = 1.0 if removes else -1.0
    plain = sign * losses  # the losses of a release without sampling, when a unit is removed
    if rate < 1:
        above = plain + np.log(1 / rate)
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = above + np.log1p(-np.exp(np.log(1 / rate - 1) - above))
        plain[losses == 0] = np.log(1 / rate + (1 - 1 / rate))
        # At the end of its range the loss is so flat that floats cannot represent its inverse.
        edge = sign * math.log(1 - rate)
        near = 1e-9 * np.maximum(np.abs(losses), abs(edge))
        plain[np.abs(losses - edge) <= near] = -math.inf
        if np.isnan(plain).any():
            raise ValueError(f"sample rate {rate}: a loss is beyond the range of floats")
    points: Floats = -0.5 - sign * plain * deviation**2
    return points if removes else 1.0 + points
