"""The extent of a file's scores, from which `cloister new` proposes a scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloister.data.targets import score_of_cell
from cloister.data.values import Value
from cloister.errors import MisfitError

# Distances of grades that are looked for, the largest first: whole and half points.
STEPS = (1.0, 0.5)


@dataclass(frozen=True)
class ScoreExtent:
    """The ends and grades of some scores. The ends are single records': they stay private.

    Attributes:
        low: The lowest score.
        high: The highest score.
        step: The largest of `STEPS` of which each score is a multiple; None: there is none.
    """

    low: float
    high: float
    step: float | None

    def with_(self, other: ScoreExtent | None) -> ScoreExtent:
        """Returns the extent of these scores and others."""
        if other is None:
            return self
        steps = (self.step, other.step)
        step = None if None in steps else min(one for one in steps if one is not None)
        return ScoreExtent(min(self.low, other.low), max(self.high, other.high), step)


def extent_of(values: Iterable[Value]) -> ScoreExtent | None:
    """Returns the extent of a column's scores; values that are none are left out.

    Returns:
        None: there is no score.
    """
    found: ScoreExtent | None = None
    for value in values:
        try:
            score = score_of_cell(value, "", "")
        except MisfitError:
            continue
        step = next((one for one in STEPS if (score / one).is_integer()), None)
        found = ScoreExtent(score, score, step).with_(found)
    return found
