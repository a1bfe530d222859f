"""Poisson sampling: each unit is in each batch with the same probability, independently.

The amplification that the accountant claims (Mironov, Talwar, Zhang 2019, arXiv:1908.10530; Zhu,
Dong, Wang 2022, arXiv:2106.08567) holds for this sampler only. Shuffled batches leak up to four
times more than the accountant would claim (Chua et al. 2024, arXiv:2411.10614).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cloister.privacy.entropy import UNIFORM_GRID, Entropy


def poisson_sample(count: int, sample_rate: float, entropy: Entropy) -> NDArray[np.int64]:
    """Draws one Poisson batch from a private number of units.

    Args:
        count: Number of units to draw from; private.
        sample_rate: Probability of each unit, from the plan; never derived from `count`.
        entropy: Source of randomness.

    Returns:
        Indices of the drawn units in rising order; may be empty.

    Guarantees:
        Independent between units and between calls. The uniforms have 53 bits, and the rate is
        rounded down to their grid: the actual rate is at most the accounted one, and within 2⁻⁵³ of
        it (float32 uniforms would turn 10⁻⁹ into 6·10⁻⁸).
    """
    # Rounded down, never up: a larger rate than the accounted one would make ε false.
    realised = math.floor(sample_rate * UNIFORM_GRID) / UNIFORM_GRID
    return np.flatnonzero(entropy.uniform(count) < realised)
