"""Statistics of tasks with one label for each record, each a share of one for a unit.

Whether a record is right is one-hot, (right, wrong): its norm is 1, where a count of units beside a
count of right ones would have norm √2. So are its place in the confusion matrix and its bin of
confidence. A person's vector is the mean of vectors, whose norm is no larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cloister.privacy.noised_ratio import Floats, Ratio
from cloister.tasks.calibration import BINS
from cloister.tasks.tally.label_tally import LabelTally
from cloister.tasks.tally.unit_statistics import DETAIL, MOST_LOSS, picked, scaled_by

# Right or wrong; loss; matrix or class; bin.
_LONGEST = math.sqrt(1 + 3 * DETAIL**2)
_RIGHT, _WRONG, _LOSS, _COUNTS = 0, 1, 2, 3


@dataclass(frozen=True)
class LabelStatistics:
    """Accuracy, loss, confusion (or right and wrong by class, if they are many) and calibration.

    Attributes:
        tally: The task's tally.
    """

    tally: LabelTally

    @property
    def _classes(self) -> int:
        return len(self.tally.task.labels)

    @property
    def _counted(self) -> int:
        return self._classes**2 if self.tally.is_matrix else 2 * self._classes

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics."""
        labels = self.tally.task.labels
        if self.tally.is_matrix:
            counts = [f"true {one}, given {other}" for one in labels for other in labels]
        else:
            counts = [f"{what} of {one}" for what in ("right", "wrong") for one in labels]
        bins = [f"{what} in bin {n}" for what in ("right", "wrong") for n in range(1, BINS + 1)]
        return ("right", "wrong", "loss", *counts, *bins)

    @cached_property
    def scales(self) -> Floats:
        """What each statistic is multiplied by."""
        groups = [(2, 1.0), (1, DETAIL / MOST_LOSS), (self._counted + 2 * BINS, DETAIL)]
        return scaled_by(groups, _LONGEST)

    def vectors(self, rows: Floats) -> Floats:
        """Returns each unit's statistics; see `Statistics.vectors`."""
        first, bins = self._counted_rows(rows), rows[:, -3 * BINS :].reshape(len(rows), 3, BINS)
        right, count = rows[:, 1], rows[:, 0]
        return np.concatenate(
            [
                np.stack([right, count - right, np.minimum(rows[:, 2], MOST_LOSS)], axis=1),
                first,
                bins[:, 2],
                bins[:, 0] - bins[:, 2],
            ],
            axis=1,
        )

    def _counted_rows(self, rows: Floats) -> Floats:
        classes = self._classes
        if self.tally.is_matrix:
            return rows[:, 3 : 3 + classes**2]
        found = rows[:, 3 : 3 + 3 * classes].reshape(len(rows), 3, classes)
        right, true = found[:, 0], found[:, 2]
        return np.concatenate([right, true - right], axis=1)

    @cached_property
    def ratios(self) -> Mapping[str, Ratio]:
        """Accuracy and mean loss."""
        size = len(self.names)
        units = picked(size, _RIGHT, _WRONG)
        return {
            "accuracy": Ratio(picked(size, _RIGHT), units, high=1.0, is_share=True),
            "loss": Ratio(picked(size, _LOSS), units, high=MOST_LOSS),
        }

    @cached_property
    def by_class(self) -> Mapping[str, Mapping[str, Ratio]]:
        """Recall of each class, and its precision where the whole matrix is counted."""
        size, classes = len(self.names), self._classes
        found = {}
        for n, label in enumerate(self.tally.task.labels):
            if self.tally.is_matrix:
                row = slice(_COUNTS + n * classes, _COUNTS + (n + 1) * classes)
                column = slice(_COUNTS + n, _COUNTS + classes**2, classes)
                right = picked(size, _COUNTS + n * (classes + 1))
                found[label] = {
                    "precision": Ratio(right, picked(size, column), high=1.0),
                    "recall": Ratio(right, picked(size, row), high=1.0),
                }
            else:
                both = picked(size, _COUNTS + n, _COUNTS + classes + n)
                found[label] = {"recall": Ratio(picked(size, _COUNTS + n), both, high=1.0)}
        return found

    def tables(self, sums: Floats) -> Mapping[str, Any]:
        """Returns the noised confusion matrix and the noised bins of confidence."""
        bins = sums[-2 * BINS :].reshape(2, BINS)
        found: dict[str, Any] = {
            "calibration": [
                {
                    "confidence": [n / BINS, (n + 1) / BINS],
                    "right": float(bins[0, n]),
                    "wrong": float(bins[1, n]),
                }
                for n in range(BINS)
            ]
        }
        if self.tally.is_matrix:
            classes = self._classes
            matrix = sums[_COUNTS : _COUNTS + classes**2].reshape(classes, classes)
            found["confusion"] = matrix.tolist()
        return found
