"""Discrete Gaussian noise, so that what is accounted is what is drawn, integers and all.

    P(k) ∝ exp(−k² / 2 s²)        k integer, s in steps of the grid

Canonne, Kamath, Steinke 2020 (arXiv:2004.00010): it costs no more Rényi divergence at any order
than the continuous Gaussian (theorem 4). A sum of n of them differs from the one of n s² by a
factor of at most exp(±10 Σ_k exp(−2π² s² k / (k + 1))) (Kairouz, Liu, Steinke 2021,
arXiv:2102.06387, theorem 3), which is 1 in float64 from s = 6 on.

It is drawn by rejection from a rounded continuous one. That has, at k = s x, the probability
φ(x)/s · (1 + e), e = (x² − 1) / 24 s² + (x⁴ − 6 x² + 3) / 1920 s⁴ + O(s⁻⁶), the mean of the
density over [k − ½, k + ½]; so k is kept with probability (1 + e₀) / (1 + e), e₀ the least.
How many draws are rejected is independent of the values that are kept, as it is in every rejection
of independent draws; of the time of a single draw nothing is claimed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.entropy import Entropy

# The next term of e is (x⁶ − 15 x⁴ + 45 x² − 15) / 322560 s⁶: below 2·10⁻¹¹ up to x = 12, where
# the draws end, times a probability of 10⁻³²; 10⁻¹⁷ at x = 1.
SMALLEST = 32.0


def discrete_gaussian(deviation: float, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """Independent discrete Gaussians, int64 [count].

    Args:
        deviation: s, in steps of the grid.
        count: How many.
        entropy: Source of randomness.

    Raises:
        RefusedError: The deviation is too small for this way of drawing; use a finer grid.
    """
    if not SMALLEST <= deviation < 2**52:
        raise RefusedError(
            f"discrete noise of deviation {deviation:.3g} steps; from {SMALLEST:g} to 2^52: use "
            "more bits a value"
        )
    kept = [np.zeros(0, dtype=np.int64)]
    missing = count
    while missing:
        drawn = np.rint(entropy.normal(missing) * deviation)
        keep = entropy.uniform(missing) < acceptance(drawn, deviation)
        kept.append(drawn[keep].astype(np.int64))
        missing -= int(keep.sum())
    return np.concatenate(kept)


def acceptance(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """With which probability a rounded normal of this value is kept."""
    x = (values / deviation) ** 2
    excess = (x - 1) / (24 * deviation**2) + (x**2 - 6 * x + 3) / (1920 * deviation**4)
    least = -1 / (24 * deviation**2) + 3 / (1920 * deviation**4)
    return (1 + least) / (1 + excess)
