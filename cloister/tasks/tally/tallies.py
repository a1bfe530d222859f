"""A task's scores as functions of sums over records, for intervals and for persons.

A meter (`cloister.tasks.task.Meter`) states scores of a set once. An interval needs the scores of
thousands of resampled sets, and a person with many records must count once. Both are easy if each
record gives a vector, and all scores are functions of the vectors' sum: sets are resampled by
weights, and a person's vector is the mean of that person's records.

Shapes: B records in a batch, D values of a record, C classes or types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from cloister.tasks.task import Batch

# The value that is 1 for each record.
COUNT = "records"


class TaskTally(Protocol):
    """Turns outputs into vectors, and sums of vectors into scores.

    Guarantees:
        `rows(outputs, batch)[i]` depends on record i alone.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D values of a record; `COUNT` is the first."""

    @property
    def shares(self) -> frozenset[str]:
        """The scores that are means of 0 or 1 over records."""

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values, float64 [B, D].

        Args:
            outputs: Logits [B, C] or [B, T, C]; of a causal LM the next tokens' losses [B, T - 1].
            batch: The records.
        """

    def scores(self, sums: np.ndarray) -> Mapping[str, np.ndarray]:
        """Returns the scores by name, [...] each, the task's primary metric first.

        Args:
            sums: Sums of records' values, [..., D]; `COUNT` is above 0.
        """

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns scores by class and name, [...] each; empty if the task has no classes."""


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns a ratio, and 0 where the denominator is 0, as scikit-learn's scores do."""
    safe = np.where(below == 0, 1.0, below)
    found: np.ndarray = np.where(below == 0, 0.0, above / safe)
    return found


def class_scores(right: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Returns precision, recall, F1 and support from counts, all of one shape.

    Args:
        right: Records of a class that got it.
        given: Records that got it.
        true: Records of it.
    """
    return {
        "precision": ratio(right, given),
        "recall": ratio(right, true),
        "f1": ratio(2 * right, given + true),
        "support": true,
    }


def macro_f1(right: np.ndarray, given: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns the mean F1 of the classes that occur or were given, from [..., C] counts."""
    used = given + true > 0
    f1 = ratio(2 * right, given + true)
    return ratio(f1.sum(axis=-1), used.sum(axis=-1).astype(float))
