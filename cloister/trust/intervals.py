"""Computes 95 % intervals: Wilson's for a share, the percentile bootstrap for a ratio of sums.

Records are resampled. If two ratios are about the same records, both are computed from the same
draws (paired), so that variation that they share cancels in their difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
# The normal quantile of (1 + LEVEL) / 2.
Z = 1.959963984540054
# Draws of a bootstrap; percentile intervals need 1,000 or more (Efron and Tibshirani 1993,
# An Introduction to the Bootstrap, section 13.3).
RESAMPLES = 2000
# Records that are drawn at once, which bounds the memory to some tens of megabytes.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval.

    Attributes:
        value: The figure.
        low: The lower end.
        high: The upper end.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Returns whether 0 is outside of the interval."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float]:
        """Returns the three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(hits: float, count: int) -> Interval | None:
    """Returns a share with Wilson's score interval (Wilson 1927); None: there is no record.

    Args:
        hits: Number of records that count.
        count: Number of all records.
    """
    if count == 0:
        return None
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    # If all or no records count, one end is the share itself, which rounding may miss by a bit.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def resampled_ratios(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns ratios of sums over resampled records; all ratios use the same draws.

    Args:
        parts: For each of K figures, numerator and denominator of each record, [K, 2, N]; N > 0.
        rng: The generator that draws records.

    Returns:
        The ratios, [K, RESAMPLES]; NaN where a denominator is 0.
    """
    figures, two, count = parts.shape
    sums = resampled_sums(parts.reshape(-1, count).T, rng).T.reshape(figures, two, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: np.ndarray = sums[:, 0] / sums[:, 1]
    return ratios


def resampled_sums(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns sums over resampled rows, [RESAMPLES, D].

    Args:
        rows: What each of N records, or persons, adds, [N, D]; N > 0.
        rng: The generator that draws them.
    """
    count = len(rows)
    found = []
    left = RESAMPLES
    while left:
        draws = min(left, max(1, _AT_ONCE // count))
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        found.append(drawn.astype(float) @ rows)
        left -= draws
    return np.concatenate(found)


def ratio(parts: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """Returns a ratio of sums with its bootstrap interval; None: the denominator is 0.

    Args:
        parts: Numerator and denominator of each record, [2, N].
        rng: The generator that draws records.
    """
    top, below = parts.sum(axis=1)
    if below == 0:
        return None
    return percentiles(float(top / below), resampled_ratios(parts[None], rng)[0])


def difference(parts: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """Returns the second of two ratios minus the first, with its paired interval.

    Args:
        parts: For each ratio, numerator and denominator of each record, [2, 2, N]; both ratios are
            about the same records.
        rng: The generator that draws records.
    """
    sums = parts.sum(axis=2)
    if (sums[:, 1] == 0).any():
        return None
    value = float(sums[1, 0] / sums[1, 1] - sums[0, 0] / sums[0, 1])
    first, second = resampled_ratios(parts, rng)
    return percentiles(value, second - first)


def mean(values: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """Returns a mean with its bootstrap interval; None: there is no value."""
    if not len(values):
        return None
    return ratio(np.stack([np.asarray(values, dtype=float), np.ones(len(values))]), rng)


def percentiles(value: float, draws: np.ndarray) -> Interval:
    """Returns a figure with the percentiles of its resampled values; NaN is left out."""
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if np.isinf(draws).any():  # nothing lies between two infinite values
        low, high = np.nanquantile(draws, ends, method="nearest")
    else:
        low, high = np.nanquantile(draws, ends)
    return Interval(value, float(low), float(high))
