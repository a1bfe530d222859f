"""The scale of scores: a range, and the step between grades if it has grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OUT_OF_RANGE = "its score is outside of the declared range"
BETWEEN_GRADES = "its score lies between two grades of the declared scale"
# Most grades of a scale: ten times the 101 grades of whole percents.
MOST_GRADES = 1001
# Largest difference of a score from its grade, as a part of a step: 0.1 has no exact binary value,
# and 1,000 steps of it have an error of 1e-13.
_CLOSE = 1e-6


@dataclass(frozen=True)
class ScoreScale:
    """A range of scores, with equal steps if scores are grades.

    Attributes:
        low: The lowest score.
        high: The highest score.
        step: Distance between two grades; None: every number in the range is a score.
    """

    low: float
    high: float
    step: float | None = None

    @classmethod
    def of(cls, ends: Sequence[float], step: float | None) -> ScoreScale:
        """Makes the scale of a declared range.

        Args:
            ends: The lowest and the highest score.
            step: Distance between two grades, or None.
        """
        low, high = ends
        return cls(low, high, step)

    def fault(self) -> str | None:
        """Returns what is wrong with the scale itself; None: nothing."""
        if not self.low < self.high:
            return f"score_range: [{self.low:g}, {self.high:g}] given; the lower end comes first"
        if self.step is None:
            return None
        steps = (self.high - self.low) / self.step
        if not 1 <= round(steps) < MOST_GRADES or abs(steps - round(steps)) > _CLOSE:
            return (
                f"score_step: {self.step:g} given; it must cut {self.low:g} to {self.high:g} into "
                f"equal steps, at most {MOST_GRADES - 1} of them"
            )
        return None

    def problem(self, score: float) -> str | None:
        """Returns why a number is not on the scale; None: it is. The text does not quote it."""
        if not self.low <= score <= self.high:
            return OUT_OF_RANGE
        if self.step is not None:
            steps = (score - self.low) / self.step
            if abs(steps - round(steps)) > _CLOSE:
                return BETWEEN_GRADES
        return None

    def share(self, score: float) -> float:
        """Returns a score's place in the range, from 0 to 1."""
        return (score - self.low) / (self.high - self.low)

    def score(self, share: float) -> float:
        """Returns the score at a place in the range, from 0 to 1."""
        return self.low + (self.high - self.low) * share

    def grade(self, score: float) -> int:
        """Returns the number of the nearest grade, from 0; only for a scale with steps."""
        assert self.step is not None
        return round((score - self.low) / self.step)

    def of_grade(self, grade: int) -> float:
        """Returns the score of a grade; only for a scale with steps."""
        assert self.step is not None
        return self.low + self.step * grade

    def __str__(self) -> str:
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{steps}"
