"""Rates by group: what is selected, what is wrong, and whether probabilities mean what they say.

Selection rate of a label: the share of a group's records that get it. True and false positive
rates are of the records that have the label, and of those that do not. The differences between
groups are fairlearn's (`demographic_parity_difference`, `equalized_odds_difference`): the largest
rate less the smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.trust.intervals import LEVEL, RESAMPLES, Interval, wilson

# As in `cloister.tasks.calibration`.
BINS = 15
# Groups that are drawn to see how large a gap chance alone makes.
SHUFFLES = 1000


@dataclass(frozen=True)
class LabelRates:
    """Rates of one label in one group; None where no record is there to count.

    Attributes:
        selected: Share that gets the label.
        true_positive: Share of those that have it.
        false_positive: Share of those that do not.
    """

    selected: Interval | None
    true_positive: Interval | None
    false_positive: Interval | None


@dataclass(frozen=True)
class LabelGap:
    """How far groups differ for one label.

    Attributes:
        label: Its name.
        selected: Largest selection rate less the smallest.
        ratio: Smallest selection rate over the largest; None where nobody is selected.
        odds: The larger of the gaps of true and false positive rates.
    """

    label: str
    selected: float
    ratio: float | None
    odds: float


def label_rates(predicted: np.ndarray, true: np.ndarray) -> LabelRates:
    """Rates of a label.

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
    """How far groups differ for a label; groups without records of a kind are left out of it."""
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
    """Expected calibration error with its bootstrap interval; None of nothing.

    Args:
        confidence: Of each record's answer, [N].
        right: Whether it was right, bool [N].
        rng: Draws records. Few records have a large error by chance alone, so groups of different
            size are compared with care.
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
    """The largest score of a group less the smallest; groups without a denominator are left out.

    Args:
        parts: Numerator and denominator of each record, [2, N].
        members: Of each group, bool [G, N].
    """
    top, below = parts @ members.T
    found = top[below > 0] / below[below > 0]
    return float(found.max() - found.min()) if len(found) else 0.0


def chance_of_gap(parts: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> float:
    """How often groups of the same sizes, drawn at random, differ at least as much: the p-value of
    a permutation test, with the found groups counted as one draw (Phipson and Smyth 2010).

    Args:
        parts: Numerator and denominator of each record, [2, N].
        members: Of each group, bool [G, N].
        rng: Draws.
    """
    found = score_gap(parts, members)
    drawn = (score_gap(parts[:, rng.permutation(parts.shape[1])], members) for _ in range(SHUFFLES))
    # Sums in another order differ in the last bits.
    hits = sum(one >= found - 1e-12 for one in drawn)
    return (hits + 1) / (SHUFFLES + 1)
