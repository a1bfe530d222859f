"""Computes rates by group: selection, errors and calibration.

The selection rate of a label is the share of a group's records that get it. The true positive rate
is over the records that have the label, the false positive rate over the records that do not. The
differences between groups are those of fairlearn (`demographic_parity_difference`,
`equalized_odds_difference`): the largest rate minus the smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.trust.intervals import LEVEL, RESAMPLES, Interval, wilson

# Number of bins, as in `cloister.tasks.calibration`.
BINS = 15
# Random groupings, which show how large a gap is by chance alone.
SHUFFLES = 1000


@dataclass(frozen=True)
class LabelRates:
    """Rates of one label in one group; None if there is no record to count.

    Attributes:
        selected: Share of all records that get the label.
        true_positive: Share of the records with the label that get it.
        false_positive: Share of the records without the label that get it.
    """

    selected: Interval | None
    true_positive: Interval | None
    false_positive: Interval | None


@dataclass(frozen=True)
class LabelGap:
    """The differences between groups for one label.

    Attributes:
        label: The label's name.
        selected: Largest selection rate minus the smallest.
        ratio: Smallest selection rate over the largest; None if no record gets the label.
        odds: The larger difference of the true and the false positive rates.
    """

    label: str
    selected: float
    ratio: float | None
    odds: float


def label_rates(predicted: np.ndarray, true: np.ndarray) -> LabelRates:
    """Returns a label's rates from predictions and true labels.

    Args:
        predicted: Whether each record gets it, bool [N].
        true: Whether each has it, bool [N].
    """
    return LabelRates(
        wilson(float(predicted.sum()), len(predicted)),
        wilson(float(predicted[true].sum()), int(true.sum())),
        wilson(float(predicted[~true].sum()), int((~true).sum())),
    )


def label_gap(label: str, rates: Sequence[LabelRates]) -> LabelGap:
    """Returns the differences for a label; a rate without records does not count for its group."""
    selected = [one.selected.value for one in rates if one.selected is not None]
    odds = (
        [one.true_positive.value for one in rates if one.true_positive is not None],
        [one.false_positive.value for one in rates if one.false_positive is not None],
    )
    return LabelGap(
        label=label,
        selected=_spread(selected),
        ratio=min(selected) / max(selected) if selected and max(selected) > 0 else None,
        odds=max(map(_spread, odds)),
    )


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0


def calibration(
    confidence: np.ndarray, right: np.ndarray, rng: np.random.Generator
) -> Interval | None:
    """Returns the expected calibration error with its bootstrap interval; None: no record.

    Args:
        confidence: The probability of each record's answer, [N].
        right: Whether the answer is correct, bool [N].
        rng: The generator that draws records. Few records have a large error by chance alone, so
            compare groups of different sizes with care.
    """
    count = len(confidence)
    if count == 0:
        return None
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.zeros((count, BINS))
    gaps[np.arange(count), bins] = right - confidence
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    errors = np.abs(drawn @ gaps).sum(axis=1) / count
    low, high = np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.abs(gaps.sum(axis=0)).sum() / count), float(low), float(high))


def score_gap(parts: np.ndarray, members: np.ndarray) -> float:
    """Returns the largest score of a group minus the smallest.

    A group whose denominator is 0 is left out.

    Args:
        parts: Numerator and denominator of each record, [2, N].
        members: The members of each group, bool [G, N].
    """
    top, below = parts @ members.T
    found = top[below > 0] / below[below > 0]
    return float(found.max() - found.min()) if len(found) else 0.0


def chance_of_gap(parts: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> float:
    """Returns the share of random groupings of the same sizes that differ at least as much.

    This is the p-value of a permutation test; the real grouping counts as one draw (Phipson and
    Smyth 2010).

    Args:
        parts: Numerator and denominator of each record, [2, N].
        members: The members of each group, bool [G, N].
        rng: The generator of the random groupings.
    """
    found = score_gap(parts, members)
    drawn = (score_gap(parts[:, rng.permutation(parts.shape[1])], members) for _ in range(SHUFFLES))
    # A tolerance: sums in another order differ in the last bits.
    hits = sum(one >= found - 1e-12 for one in drawn)
    return (hits + 1) / (SHUFFLES + 1)
