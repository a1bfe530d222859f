"""Compares a window with a reference by PSI, the chi-square and the Kolmogorov-Smirnov test.

PSI is the sum over bins of (p − q)·ln(p / q), the symmetrized Kullback-Leibler divergence of two
histograms. It measures how large a change is, not whether it is random: for two samples of the same
distribution its mean is about (K − 1)(1/n + 1/m) (Yurdakul and Naranjo 2020, Statistical properties
of the population stability index). So each PSI is reported together with a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc, kolmogorov

# A category with a smaller expected count is joined with others, because the chi-square
# distribution is then too inexact (Cochran 1954, Some methods for strengthening the common χ²
# tests).
FEWEST_EXPECTED = 5.0
# Added to each bin, so that an empty bin gives a finite PSI: Jeffreys' prior of a multinomial.
ADDED = 0.5


def psi(reference: Sequence[float], window: Sequence[float]) -> float:
    """Returns the population stability index of two histograms over the same bins.

    Args:
        reference: Counts, [K].
        window: Counts, [K].

    Returns:
        0 for equal shares; a larger value for a larger difference.
    """
    p = np.asarray(reference, dtype=float) + ADDED
    q = np.asarray(window, dtype=float) + ADDED
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def chi_square(reference: Sequence[float], window: Sequence[float]) -> float | None:
    """Tests by Pearson's chi-square whether two samples have one distribution over categories.

    Categories with an expected count below `FEWEST_EXPECTED` in either sample are joined.

    Args:
        reference: Counts, [K].
        window: Counts, [K].

    Returns:
        The p-value; None: fewer than two categories are left, so nothing can be tested.
    """
    table = np.array([reference, window], dtype=float)
    table = table[:, table.sum(axis=0) > 0]
    rows = table.sum(axis=1)
    if table.shape[1] < 2 or not rows.all():
        return None
    shares = rows / rows.sum()
    rare = table.sum(axis=0) * shares.min() < FEWEST_EXPECTED
    if rare.any():
        joined = table[:, rare].sum(axis=1, keepdims=True)
        table = table[:, ~rare]
        if joined.sum() * shares.min() >= FEWEST_EXPECTED:
            table = np.hstack([table, joined])
        elif table.shape[1]:
            # The remaining category is too rare alone: join it with the smallest of the others.
            table[:, [int(table.sum(axis=0).argmin())]] += joined
    if table.shape[1] < 2:
        return None
    expected = np.outer(shares, table.sum(axis=0))
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic))


def kolmogorov_smirnov(reference: np.ndarray, window: np.ndarray) -> float | None:
    """Tests whether two samples of numbers have one distribution.

    The p-value comes from the limit distribution with Stephens' correction for finite samples
    (Stephens 1970, Use of the Kolmogorov-Smirnov statistics). With ties it is too large, which only
    gives fewer findings.

    Args:
        reference: Numbers in ascending order, [N].
        window: Numbers in any order, [M].

    Returns:
        The p-value; None: a sample is empty.
    """
    n, m = len(reference), len(window)
    if not n or not m:
        return None
    ordered = np.sort(window)
    both = np.concatenate([reference, ordered])
    below = np.searchsorted(reference, both, side="right") / n
    gap = float(np.abs(below - np.searchsorted(ordered, both, side="right") / m).max())
    root = math.sqrt(n * m / (n + m))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * gap))
