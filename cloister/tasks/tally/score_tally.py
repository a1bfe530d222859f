"""Sums for the scoring of texts: errors, and the moments of predicted and true scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cloister.tasks.scoring import Scoring
from cloister.tasks.tally.tallies import COUNT, ratio
from cloister.tasks.task import Batch

# A variance below this part of the mean square is rounding: the side is constant.
_ROUNDING = 1e-12
_MOMENTS = ("true", "predicted", "true²", "predicted²", "true·predicted")


@dataclass(frozen=True)
class ScoreTally:
    """Correlation, weighted agreement of grades, errors and loss of a scoring task.

    A record's values: 1; loss; absolute and squared error; the moments of true and predicted score,
    as shares of the range; and where scores are grades, the moments of the grades, as shares of the
    number of steps.

    Attributes:
        task: The task.
    """

    task: Scoring
    shares: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a record's values."""
        grades = () if self.task.scale.step is None else tuple(f"grade: {one}" for one in _MOMENTS)
        return (COUNT, "loss", "error", "squared error", *_MOMENTS, *grades)

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values from logits [B, 1]; see `TaskTally.rows`."""
        scale = self.task.scale
        given, true = outputs[:, 0].double().sigmoid().numpy(), batch.target[:, 0].double().numpy()
        pairs = [
            np.array([scale.score(share) for share in side.tolist()]) for side in (true, given)
        ]
        error = pairs[1] - pairs[0]
        losses = self.task.record_losses(outputs, batch).double().numpy()
        parts = [np.ones(len(true)), losses, np.abs(error), error**2, *_moments(true, given)]
        if scale.step is not None:
            most = max(scale.grade(scale.high), 1)
            grades = [np.array([scale.grade(s) for s in one.tolist()]) / most for one in pairs]
            parts += _moments(*grades)
        return np.stack(parts, axis=1)

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the meter's scores from the sums."""
        means = sums / sums[..., :1]
        found = {}
        if self.task.scale.step is not None:
            found["qwk"] = _kappa(means[..., 9:])
        return {
            **found,
            "pearson": _correlation(means[..., 4:9]),
            "mae": means[..., 2],
            "rmse": np.sqrt(means[..., 3]),
            "loss": means[..., 1],
        }

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns nothing: scores have no classes."""
        return {}


def _moments(true: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    return [true, given, true**2, given**2, true * given]


def _variances(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both variances from mean moments [..., 5], exactly 0 for a constant side."""
    found = []
    for mean, square in ((moments[..., 0], moments[..., 2]), (moments[..., 1], moments[..., 3])):
        variance = square - mean**2
        found.append(np.where(variance <= _ROUNDING * square, 0.0, variance))
    return found[0], found[1]


def _correlation(moments: np.ndarray) -> np.ndarray:
    """Pearson's correlation from mean moments [..., 5]; 0 where a side is constant."""
    one, other = _variances(moments)
    together = moments[..., 4] - moments[..., 0] * moments[..., 1]
    found: np.ndarray = np.clip(ratio(together, np.sqrt(one * other)), -1.0, 1.0)
    return found


def _kappa(moments: np.ndarray) -> np.ndarray:
    """Quadratic weighted kappa from mean moments [..., 5] (`quadratic_weighted_kappa`)."""
    one, other = _variances(moments)
    by_chance = one + other + (moments[..., 0] - moments[..., 1]) ** 2
    apart = moments[..., 2] + moments[..., 3] - 2 * moments[..., 4]
    found: np.ndarray = np.where(by_chance == 0, 0.0, 1.0 - ratio(apart, by_chance))
    return found
