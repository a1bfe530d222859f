"""A unit's bounded vector of statistics, from whose noised sum a task's scores are estimated.

A tally's row (`tallies`) has no bound. Here each unit's row, the mean over its records, becomes one
vector that is clipped as a whole: counts are one-hot, losses are cut, and public weights scale all
of it so that usual units have norm at most 1. A longer vector is scaled down as a whole, numerators
and denominators alike, so its unit counts less and moves no ratio.

Shapes: N units, D statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from cloister.privacy.noised_ratio import Floats, Ratio

# Losses in nats are cut here: guessing among 55 classes costs as much.
MOST_LOSS = 4.0
# Weight of statistics that only explain a score. Their noise is twice as large; with weight 1 each
# of them would lengthen the vector, and so add to the score's noise, by as much as the score.
DETAIL = 0.5


class Statistics(Protocol):
    """Turns a unit's row of a tally into its vector, and the sum of vectors into scores.

    Guarantees:
        `vectors(rows)[i]` depends on row i alone. `scales` are public.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D statistics."""

    @property
    def scales(self) -> Floats:
        """What each statistic is multiplied by before the joint clip, [D]."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """The scores by name, the task's primary metric first."""

    @property
    def by_class(self) -> Mapping[str, Mapping[str, Ratio]]:
        """Scores by class and name; empty if the task has no classes."""

    def vectors(self, rows: Floats) -> Floats:
        """Returns each unit's statistics before scaling, [N, D].

        Args:
            rows: The units' means of the tally's values.
        """

    def tables(self, sums: Floats) -> Mapping[str, Any]:
        """Returns noised sums for a reader, as JSON values.

        Args:
            sums: The noised sums of the statistics before scaling, [D].
        """


def scaled_by(weights: list[tuple[int, float]], longest: float) -> Floats:
    """Returns the scales of groups of statistics.

    Args:
        weights: Size and weight of each group.
        longest: Norm of the weighted vector that becomes 1.
    """
    return np.concatenate([np.full(size, weight / longest) for size, weight in weights])


def picked(size: int, *places: int | slice, weight: float = 1.0) -> Floats:
    """Returns a vector that is `weight` at some places and else 0."""
    found = np.zeros(size)
    for place in places:
        found[place] = weight
    return found
