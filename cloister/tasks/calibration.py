"""Whether probabilities mean what they say: the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Of equal width, as Guo et al. (2017, arXiv:1706.04599, section 3) report it.
BINS = 15


def expected_calibration_error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """How far confidence lies from accuracy, on average over records.

    Σ (nᵇ/n)·|accuracyᵇ − confidenceᵇ| over 15 bins of confidence of equal width, of which each has
    its upper edge (Guo et al. 2017, arXiv:1706.04599, equation 3).

    Args:
        confidence: Each record's largest probability, in 0…1.
        right: Whether its class was the record's.

    Returns:
        In 0…1, 0 without records. Few records give a large value by chance alone: of a thousand
        well calibrated ones about 0.02.
    """
    if not len(confidence):
        return 0.0
    found = np.asarray(confidence, dtype=float)
    hits = np.asarray(right, dtype=float)
    bins = np.clip(np.ceil(found * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, hits - found, BINS)
    return float(np.abs(gaps).sum() / len(found))
