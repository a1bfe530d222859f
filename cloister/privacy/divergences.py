"""Computes Rényi divergences of a subsampled Gaussian at many orders, vectorized.

Mironov, Talwar, Zhang 2019, arXiv:1908.10530, section 3.3. dp-accounting adds the series' terms in
a Python loop for each of its 156 orders, which takes most of the time of an ε by Rényi DP.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Constants of `dp_accounting.rdp.rdp_privacy_accountant._compute_log_a_frac`: the largest number of
# terms, and how far the logarithm of the last term must be below that of the sum.
MOST_TERMS, NEGLIGIBLE = 1000, 30.0
# Terms that are computed together; most series need no more.
BLOCK = 64


@lru_cache(maxsize=4096)
def divergences(
    noise_multiplier: float, sample_rate: float, orders: tuple[float, ...]
) -> tuple[float, ...]:
    """Computes the divergence of one Poisson-subsampled Gaussian release at each order.

    Args:
        noise_multiplier: Deviation of the noise at sensitivity 1, above 0.
        sample_rate: Probability with which a unit is drawn.
        orders: α, each above 1.

    Returns:
        The divergence at each order; ∞ where a series does not converge.

    Guarantees:
        Equals what `RdpAccountant` computes, up to the last bits of floats.
    """
    if sample_rate == 0:
        return (0.0,) * len(orders)
    wanted = np.array(orders, dtype=np.float64)
    with np.errstate(all="ignore"):  # NaN and overflows become ∞ below
        found = wanted / (2 * noise_multiplier**2)
        if sample_rate < 1:
            found = _log_moments(sample_rate, noise_multiplier, wanted) / (wanted - 1)
    found[np.isnan(found) | (found < 0)] = math.inf
    return tuple(found.tolist())


def _log_moments(rate: float, noise: float, orders: Floats) -> Floats:
    is_whole = orders == np.floor(orders)
    found = np.empty(len(orders))
    found[is_whole] = [_whole(rate, noise, int(order)) for order in orders[is_whole]]
    found[~is_whole] = _between(rate, noise, orders[~is_whole])
    return found


def _whole(rate: float, noise: float, order: int) -> float:
    """Returns log A of an integer order: a finite sum of order + 1 terms."""
    i = np.arange(order + 1.0)
    terms = _log_binomial(float(order), i) + i * math.log(rate) + (order - i) * math.log1p(-rate)
    return float(np.logaddexp.reduce(terms + (i * i - i) / (2 * noise**2)))


def _between(rate: float, noise: float, orders: Floats) -> Floats:
    """Returns log A of fractional orders: two series, summed until their terms are negligible."""
    found = np.full(len(orders), math.inf)
    is_open = np.ones(len(orders), dtype=bool)
    sums, last = np.full((2, len(orders)), -math.inf), np.full((2, len(orders)), -math.inf)
    for first in range(0, MOST_TERMS, BLOCK):
        i = np.arange(first, min(first + BLOCK, MOST_TERMS), dtype=np.float64)
        terms = _terms(rate, noise, orders[:, None], i)
        partial = np.logaddexp.accumulate(np.concatenate([sums[..., None], terms], axis=2), axis=2)
        whole = np.logaddexp(partial[0], partial[1])[:, 1:]
        before = np.concatenate([last[..., None], terms[..., :-1]], axis=2)
        is_end = (terms < before).all(axis=0) & (terms.max(axis=0) < whole - NEGLIGIBLE)
        ends = is_open & is_end.any(axis=1)
        found[ends] = whole[ends, is_end[ends].argmax(axis=1)]
        is_open &= ~ends
        if not is_open.any():
            break
        sums, last = partial[..., -1], terms[..., -1]
    return found


def _terms(rate: float, noise: float, order: Floats, i: Floats) -> Floats:
    """Returns the logarithms of both series' terms, [2, orders, terms]."""
    from scipy.special import log_ndtr

    border = noise**2 * math.log(1 / rate - 1) + 0.5
    j, drawn, not_drawn = order - i, math.log(rate), math.log1p(-rate)
    binomial = _log_binomial(order, i)
    return np.stack(
        [
            binomial
            + i * drawn
            + j * not_drawn
            + (i * i - i) / (2 * noise**2)
            + log_ndtr((border - i) / noise),
            binomial
            + j * drawn
            + i * not_drawn
            + (j * j - j) / (2 * noise**2)
            + log_ndtr((j - border) / noise),
        ]
    )


def _log_binomial(n: Floats | float, k: Floats) -> Floats:
    from scipy.special import gammaln

    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found
