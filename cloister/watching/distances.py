"""How far a window's figures lie from a reference's: PSI, chi-square, and Kolmogorov-Smirnov.

PSI is the sum over bins of (p − q)·ln(p / q), the symmetrized Kullback-Leibler divergence of two
histograms. It says how large a change is and not whether chance explains it: of two samples of one
distribution its mean is about (K − 1)(1/n + 1/m) (Yurdakul and Naranjo 2020, Statistical properties
of the population stability index). So each PSI stands beside a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc, kolmogorov

# The expected count below which a category is joined with others, as the chi-square distribution
# is too far from the exact one (Cochran 1954, Some methods for strengthening the common χ² tests).
FEWEST_EXPECTED = 5.0
# Added to each bin, so that an empty one gives no infinite PSI: Jeffreys' prior of a multinomial.
ADDED = 0.5


def psi(reference: Sequence[float], window: Sequence[float]) -> float:
    """The population stability index of two histograms over the same bins.

    Args:
        reference: Counts, [K].
        window: Counts, [K].

    Returns:
        0 where the shares are equal, and more the further they are apart.
    """
    p = np.asarray(reference, dtype=float) + ADDED
    q = np.asarray(window, dtype=float) + ADDED
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def chi_square(reference: Sequence[float], window: Sequence[float]) -> float | None:
    """Pearson's test that two samples have one distribution over categories.

    Categories that are expected less than `FEWEST_EXPECTED` times in either sample are joined.

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
            # What is left is too rare to stand alone: it joins the smallest of the others.
            table[:, [int(table.sum(axis=0).argmin())]] += joined
    if table.shape[1] < 2:
        return None
    expected = np.outer(shares, table.sum(axis=0))
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic))


def kolmogorov_smirnov(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The two-sample test that numbers have one distribution.

    The p-value is of the limit distribution with Stephens' correction for finite samples (Stephens
    1970, Use of the Kolmogorov-Smirnov statistics). With ties it is too large, which is safe.

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
