"""Discrete Gaussian noise for shared sums: exactly the integer noise that is accounted.

    P(k) ∝ exp(−k² / 2 s²)        k integer, s in steps of the grid

Canonne, Kamath, Steinke 2020 (arXiv:2004.00010): it costs no more Rényi divergence at any order
than the continuous Gaussian (theorem 4). A sum of n of them differs from the one of n s² by a
factor of at most exp(±10 Σ_k exp(−2π² s² k / (k + 1))) (Kairouz, Liu, Steinke 2021,
arXiv:2102.06387, theorem 3), which is 1 in float64 from s = 6 on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.entropy import Entropy
from cloister.privacy.gaussian_table import LARGEST
from cloister.privacy.threads import each_block

# The smallest deviation of a share; from here on the error term of a sum is negligible.
SMALLEST = 32.0
# Values that one thread draws at a time; their temporaries stay in a core's caches.
BLOCK = 2**17


def discrete_gaussian(deviation: float, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """Draws independent discrete Gaussians for a share of a sum's noise, int64 [count].

    Args:
        deviation: s, in steps of the grid.
        count: Number of values.
        entropy: Source of randomness.

    Raises:
        RefusedError: The deviation is too small for the theorem on sums; use a finer grid.
    """
    if not SMALLEST <= deviation < LARGEST:
        raise RefusedError(
            f"discrete noise of deviation {deviation:.3g} steps; from {SMALLEST:g} to 2^52 is "
            "needed: use more bits per value"
        )
    drawn = np.empty(count, dtype=np.int64)

    def draw(start: int) -> None:
        part = drawn[start : start + BLOCK]
        part[:] = entropy.gaussian(deviation, len(part))

    each_block(range(0, count, BLOCK), draw, entropy)
    return drawn
