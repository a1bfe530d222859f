"""Intervals at 95 %: Wilson's of a share, the percentile bootstrap's of a ratio of sums.

Records are resampled; where two ratios are of the same records, both are computed of the same draws
(paired), so that what the records have in common cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
# The normal quantile of (1 + LEVEL) / 2.
Z = 1.959963984540054
# Draws of a bootstrap: percentile intervals need 1,000 or more (Efron and Tibshirani 1993,
# An Introduction to the Bootstrap, section 13.3).
RESAMPLES = 2000
# Records that are drawn at once, so that memory stays at some tens of megabytes.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

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
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float]:
        """Returns the three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(hits: float, count: int) -> Interval | None:
    """A share with Wilson's score interval (Wilson 1927); None of nothing.

    Args:
        hits: Of `count`.
        count: Records.
    """
    if count == 0:
        return None
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    # Where all or none hit, an end is the share itself, which rounding may miss by a bit.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def resampled_ratios(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ratios of sums over resampled records, paired.

    Args:
        parts: Of each of K figures numerator and denominator of each record, [K, 2, N]; N > 0.
        rng: Draws the records.

    Returns:
        [K, RESAMPLES]; NaN where a denominator is 0.
    """
    count = parts.shape[2]
    found = []
    left = RESAMPLES
    while left:
        rows = min(left, max(1, _AT_ONCE // count))
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=rows)
        found.append(np.einsum("rn,kpn->kpr", drawn.astype(float), parts))
        left -= rows
    sums = np.concatenate(found, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: np.ndarray = sums[:, 0] / sums[:, 1]
    return ratios


def ratio(parts: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """A ratio of sums with its bootstrap interval; None where the denominator is 0.

    Args:
        parts: Numerator and denominator of each record, [2, N].
        rng: Draws the records.
    """
    top, below = parts.sum(axis=1)
    if below == 0:
        return None
    return _between(float(top / below), resampled_ratios(parts[None], rng)[0])


def difference(parts: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """The second of two ratios less the first, of the same records, with its paired interval.

    Args:
        parts: Of each ratio numerator and denominator of each record, [2, 2, N].
        rng: Draws the records.
    """
    sums = parts.sum(axis=2)
    if (sums[:, 1] == 0).any():
        return None
    value = float(sums[1, 0] / sums[1, 1] - sums[0, 0] / sums[0, 1])
    first, second = resampled_ratios(parts, rng)
    return _between(value, second - first)


def mean(values: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """A mean with its bootstrap interval; None of nothing."""
    if not len(values):
        return None
    return ratio(np.stack([np.asarray(values, dtype=float), np.ones(len(values))]), rng)


def _between(value: float, draws: np.ndarray) -> Interval:
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
