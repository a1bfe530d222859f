"""Computes the expected calibration error: how far probabilities are from observed frequencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Number of bins, of equal width, as in Guo et al. (2017, arXiv:1706.04599, section 3).
BINS = 15


def expected_calibration_error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Returns the mean difference of confidence and accuracy.

    Σ (nᵇ/n)·|accuracyᵇ − confidenceᵇ| over 15 bins of confidence of equal width; a bin includes its
    upper edge (Guo et al. 2017, arXiv:1706.04599, equation 3).

    Args:
        confidence: Each record's largest probability, from 0 to 1.
        right: Whether the most probable class was the record's.

    Returns:
        A value from 0 to 1; 0 without records. With few records chance alone gives a large value:
        a thousand well calibrated records have about 0.02.
    """
    if not len(confidence):
        return 0.0
    found = np.asarray(confidence, dtype=float)
    hits = np.asarray(right, dtype=float)
    bins = np.clip(np.ceil(found * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, hits - found, BINS)
    return float(np.abs(gaps).sum() / len(found))
