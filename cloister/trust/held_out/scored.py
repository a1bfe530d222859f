"""Scores of a network on units of held-out records, each with a 95 % interval.

Math:
    Every score is a function of the sum of the units' vectors (`cloister.tasks.tally`). Units are
    resampled, as in the bootstrap of a ratio (`cloister.trust.intervals`), and the interval is that
    of the percentiles. A score that is a mean of 0 or 1 has Wilson's interval, with the number of
    units as the number of trials: a person's mean of 0 and 1 varies less than one of its values, so
    the interval is never too short for that, and it is not empty where all are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloister.canonical import json_number
from cloister.tasks.tally.label_tally import LabelTally
from cloister.tasks.tally.tallies import TaskTally
from cloister.trust.intervals import Interval, percentiles, resampled_sums, wilson


@dataclass(frozen=True)
class HeldOutScores:
    """The scores of a network on held-out units.

    Attributes:
        units: Number of units, each of which counts as one.
        scores: By name, the task's primary metric first.
        classes: By class and name; empty if the task has none.
        confusion: Units by true and predicted class; None: the task has no one label, or too many.
        bins: Of each bin of confidence the units, the mean confidence and the share that is right;
            empty if the task has no confidence.
    """

    units: int
    scores: Mapping[str, Interval]
    classes: Mapping[str, Mapping[str, Interval]]
    confusion: tuple[tuple[float, ...], ...] | None = None
    bins: tuple[tuple[float, float, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns all figures as JSON; None in place of infinity."""
        return {
            "units": self.units,
            "scores": {name: _json(one) for name, one in self.scores.items()},
            "classes": {
                label: {name: _json(one) for name, one in scores.items()}
                for label, scores in self.classes.items()
            },
            "confusion": self.confusion,
            "calibration": [
                dict(zip(("units", "confidence", "right"), one, strict=True)) for one in self.bins
            ],
        }


def score_units(rows: np.ndarray, tally: TaskTally, rng: np.random.Generator) -> HeldOutScores:
    """Computes all scores of a tally and their intervals.

    Args:
        rows: What each unit adds, [N, D]; N > 0.
        tally: The task's tally.
        rng: The generator that draws units.
    """
    whole, drawn = rows.sum(axis=0), resampled_sums(rows, rng)
    values, draws = tally.scores(whole), tally.scores(drawn)
    scores = {
        name: _interval(float(value), draws[name], name in tally.shares, len(rows))
        for name, value in values.items()
    }
    by_class = tally.by_class(drawn)
    classes = {
        label: {
            name: _interval(float(value), by_class[label][name], False, len(rows))
            for name, value in found.items()
        }
        for label, found in tally.by_class(whole).items()
    }
    if not isinstance(tally, LabelTally):
        return HeldOutScores(len(rows), scores, classes)
    matrix = tally.confusion(whole)
    counts, sure, right = tally.bins(whole)
    bins = tuple(
        (float(n), float(s / n), float(r / n))
        for n, s, r in zip(counts, sure, right, strict=True)
        if n > 0
    )
    confusion = None if matrix is None else tuple(map(tuple, matrix.tolist()))
    return HeldOutScores(len(rows), scores, classes, confusion, bins)


def _interval(value: float, draws: np.ndarray, is_share: bool, units: int) -> Interval:
    if is_share:
        found = wilson(value * units, units)
        assert found is not None  # there is a unit
        return found
    return percentiles(value, draws)


def _json(one: Interval) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in one.to_json().items()}
