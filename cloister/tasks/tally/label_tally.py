"""Sums for tasks with one label for each record: a confusion matrix, calibration, loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from cloister.tasks.calibration import BINS
from cloister.tasks.tally.tallies import COUNT, class_scores, macro_f1
from cloister.tasks.task import Batch, Task

# With more classes, each class's counts are summed in place of all pairs of classes: a matrix of 30
# rows still fits on a page.
MOST_CONFUSED = 30


@dataclass(frozen=True)
class LabelTally:
    """Accuracy, macro-F1, loss and calibration of a task with one label for each record.

    A record's values: 1; whether it is right; its loss; one 1 in the matrix of true and predicted
    classes (with many classes, one among the true and one among the predicted ones, and one among
    the right ones); and in the bin of its confidence 1, the confidence, and whether it is right.

    Attributes:
        task: The task.
    """

    task: Task
    shares: frozenset[str] = frozenset({"accuracy"})

    @property
    def is_matrix(self) -> bool:
        """Whether all pairs of classes are counted."""
        return len(self.task.labels) <= MOST_CONFUSED

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of a record's values."""
        labels = self.task.labels
        if self.is_matrix:
            counts = [f"true {one}, given {other}" for one in labels for other in labels]
        else:
            counts = [f"{what} {one}" for what in ("right", "given", "true") for one in labels]
        bins = [f"{what} in bin {n}" for what in ("count", "confidence", "right") for n in _PLACES]
        return (COUNT, "correct", "loss", *counts, *bins)

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values from logits [B, C]; see `TaskTally.rows`."""
        given, true = outputs.argmax(dim=1).numpy(), batch.target.numpy()
        sure = outputs.double().softmax(dim=1).amax(dim=1).numpy()
        right = (given == true).astype(float)
        count, classes = len(true), len(self.task.labels)
        every = np.arange(count)
        if self.is_matrix:
            counts = np.zeros((count, classes, classes))
            counts[every, true, given] = 1
        else:
            counts = np.zeros((count, 3, classes))
            counts[every, 0, true] = right
            counts[every, 1, given] = counts[every, 2, true] = 1
        bins = np.zeros((count, 3, BINS))
        place = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
        bins[every, 0, place], bins[every, 1, place], bins[every, 2, place] = 1, sure, right
        losses = self.task.record_losses(outputs, batch).double().numpy()
        first = np.stack([np.ones(count), right, losses], axis=1)
        return np.concatenate([first, counts.reshape(count, -1), bins.reshape(count, -1)], axis=1)

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns accuracy, macro-F1, mean loss and calibration error, as the meter does."""
        count = sums[..., 0]
        _, sure, right = self.bins(sums)
        return {
            "accuracy": sums[..., 1] / count,
            "macro_f1": macro_f1(*self._classes(sums)),
            "loss": sums[..., 2] / count,
            "ece": np.abs(right - sure).sum(axis=-1) / count,
        }

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns precision, recall, F1 and support of each class."""
        right, given, true = self._classes(sums)
        return {
            label: class_scores(right[..., n], given[..., n], true[..., n])
            for n, label in enumerate(self.task.labels)
        }

    def confusion(self, sums: np.ndarray) -> np.ndarray | None:
        """Returns records by true and predicted class, [..., C, C]; None: too many classes."""
        if not self.is_matrix:
            return None
        classes = len(self.task.labels)
        return sums[..., 3 : 3 + classes**2].reshape(*sums.shape[:-1], classes, classes)

    def bins(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns records, sum of confidences and right records of each bin, [..., BINS] each."""
        found = sums[..., -3 * BINS :].reshape(*sums.shape[:-1], 3, BINS)
        return found[..., 0, :], found[..., 1, :], found[..., 2, :]

    def _classes(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns right, given and true records of each class, [..., C] each."""
        matrix = self.confusion(sums)
        if matrix is None:
            classes = len(self.task.labels)
            found = sums[..., 3 : 3 + 3 * classes].reshape(*sums.shape[:-1], 3, classes)
            return found[..., 0, :], found[..., 1, :], found[..., 2, :]
        return (
            np.diagonal(matrix, axis1=-2, axis2=-1),
            matrix.sum(axis=-2),
            matrix.sum(axis=-1),
        )


_PLACES = range(1, BINS + 1)
