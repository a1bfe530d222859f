"""Coefficients of agreement, written as functions of sums over judgements for a fast bootstrap.

Every coefficient is f(Σ_i w_i φ(i)), where φ(i) are counts of judgement i and w_i is how often it
is drawn (1 for the estimate itself). So all resamples together are one product of matrices.

Shapes: N judgements, A annotators, K categories, B resamples, D counts of a judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# The answers to one judgement, one for each annotator; None: the annotator gave none.
Answers = Sequence[str | float | None]


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of agreement over judgements.

    Attributes:
        features: φ of each judgement, [N, D].
        value: Computes the coefficient [B] from the sums [B, D]; NaN where it is undefined.
    """

    features: Array
    value: Callable[[Array], Array]

    def estimate(self) -> float | None:
        """Computes the coefficient of all judgements; None: it is undefined."""
        found = float(self._of(self.features.sum(axis=0, keepdims=True))[0])
        return found if np.isfinite(found) else None

    def resampled(self, weights: Array) -> Array:
        """Computes the coefficient of each resample.

        Args:
            weights: How often each judgement is drawn, [B, N].

        Returns:
            One number for each resample, [B]; NaN where it is undefined.
        """
        return self._of(weights @ self.features)

    def _of(self, sums: Array) -> Array:
        # A resample may hold no judgement that a coefficient uses; then it is 0/0, so NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.value(sums)


def counts_of(judgements: Sequence[Answers]) -> Array:
    """Counts how many annotators gave each answer, [N, K]."""
    names = sorted({str(a) for answers in judgements for a in answers if a is not None})
    place = {name: at for at, name in enumerate(names)}
    counts = np.zeros((len(judgements), max(len(names), 1)))
    for row, answers in zip(counts, judgements, strict=True):
        for answer in answers:
            if answer is not None:
                row[place[str(answer)]] += 1
    return counts


def raw(counts: Array) -> Coefficient:
    """Mean over judgements of the share of pairs of answers that are equal.

    Args:
        counts: Answers by category, [N, K], of which each row has at least two.
    """
    return Coefficient(
        np.column_stack([_equal_pairs(counts), np.ones(len(counts))]), lambda s: s[:, 0] / s[:, 1]
    )


def _equal_pairs(counts: Array) -> Array:
    """Returns the share of each judgement's pairs of answers that are equal, [N]."""
    given = counts.sum(axis=1)
    shares: Array = (counts * (counts - 1)).sum(axis=1) / (given * (given - 1))
    return shares


def cohen(judgements: Sequence[Answers]) -> Coefficient:
    """κ of two annotators (Cohen 1960, Educational and Psychological Measurement 20(1), p. 40).

    Args:
        judgements: The judgements that both answered.
    """
    names = sorted({str(a) for answers in judgements for a in answers})
    place = {name: at for at, name in enumerate(names)}
    size = len(names)
    features = np.zeros((len(judgements), size * size))
    for row, (first, second) in zip(features, judgements, strict=True):
        row[place[str(first)] * size + place[str(second)]] = 1

    def value(sums: Array) -> Array:
        table = sums.reshape(len(sums), size, size)
        total = table.sum(axis=(1, 2))
        observed = np.trace(table, axis1=1, axis2=2) / total
        expected = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1) / total**2
        return _beyond_chance(observed, expected)

    return Coefficient(features, value)


def fleiss(counts: Array) -> Coefficient:
    """κ of several annotators (Fleiss 1971, Psychological Bulletin 76(5), eq. 3 to 6).

    Args:
        counts: Answers by category, [N, K], of judgements that all annotators answered.
    """
    features = np.column_stack([_equal_pairs(counts), np.ones(len(counts)), counts])

    def value(sums: Array) -> Array:
        observed = sums[:, 0] / sums[:, 1]
        shares = sums[:, 2:] / sums[:, 2:].sum(axis=1, keepdims=True)
        return _beyond_chance(observed, (shares**2).sum(axis=1))

    return Coefficient(features, value)


def alpha(counts: Array) -> Coefficient:
    """α of unordered answers (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, C).

    Annotators may have left judgements out.

    Args:
        counts: Answers by category, [N, K], of which each row has at least two.
    """
    given = counts.sum(axis=1)
    # Number of ordered pairs of different answers to a judgement, divided by its answers minus one.
    different = (given**2 - (counts**2).sum(axis=1)) / (given - 1)
    features = np.column_stack([different, given, counts])

    def value(sums: Array) -> Array:
        total = sums[:, 1]
        observed = sums[:, 0] / total
        expected = (total**2 - (sums[:, 2:] ** 2).sum(axis=1)) / (total * (total - 1))
        return np.where(expected > 0, 1 - observed / expected, np.nan)

    return Coefficient(features, value)


def interval_alpha(judgements: Sequence[Answers]) -> Coefficient:
    """α of numbers, with squared differences (Krippendorff 2011, section E, interval metric).

    Args:
        judgements: Each with at least two numbers.
    """
    rows = [[float(a) for a in answers if a is not None] for answers in judgements]
    given = np.array([len(row) for row in rows], dtype=float)
    first = np.array([sum(row) for row in rows])
    second = np.array([sum(x * x for x in row) for row in rows])
    # Σ over ordered pairs of (x - y)² is 2 (m Σx² - (Σx)²).
    different = 2 * (given * second - first**2) / (given - 1)
    features = np.column_stack([different, given, first, second])

    def value(sums: Array) -> Array:
        total = sums[:, 1]
        observed = sums[:, 0] / total
        spread = 2 * (total * sums[:, 3] - sums[:, 2] ** 2) / (total * (total - 1))
        # If all numbers are equal, the sum is 0 up to rounding, which is below this share of it.
        is_spread = spread > 1e-12 * np.abs(sums[:, 3])
        return np.where(is_spread, 1 - observed / spread, np.nan)

    return Coefficient(features, value)


def _beyond_chance(observed: Array, expected: Array) -> Array:
    """Returns (observed − expected) / (1 − expected), NaN where expected is 1."""
    return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
