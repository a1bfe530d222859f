"""Poisson sampling: each record is in each batch with the same probability, independently.

The amplification that the accountant claims (Mironov, Talwar, Zhang 2019, arXiv:1908.10530; Zhu,
Dong, Wang 2022, arXiv:2106.08567) holds for this sampler only. Shuffled batches leak up to four
times more than it claims for them (Chua et al. 2024, arXiv:2411.10614).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.privacy.entropy import Entropy


def poisson_sample(count: int, sample_rate: float, entropy: Entropy) -> NDArray[np.int64]:
    """Draws one batch.

    Args:
        count: Number of records to draw from; private.
        sample_rate: Probability of each record, from the plan; never derived from `count`.
        entropy: Source of randomness.

    Returns:
        Indices of the drawn records in rising order; may be empty.

    Guarantees:
        Independent between records and between calls. The uniforms have 53 bits, so a rate q is
        realised within 2⁻⁵³ (float32 uniforms would turn 10⁻⁹ into 6·10⁻⁸).
    """
    return np.flatnonzero(entropy.uniform(count) < sample_rate)
