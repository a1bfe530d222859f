"""The scale of scores: a range, and the step between grades where it has grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OUT_OF_RANGE = "its score is outside of the declared range"
BETWEEN_GRADES = "its score lies between two grades of the declared scale"
# A hundred and one grades for percents, and ten times as many.
MOST_GRADES = 1001
# Part of a step by which a score may miss its grade: 0.1 has no exact binary value, and 1,000
# steps of it are off by 1e-13.
_CLOSE = 1e-6


@dataclass(frozen=True)
class ScoreScale:
    """A range of scores.

    Attributes:
        low: The lowest.
        high: The highest.
        step: Between two grades; None: every number in the range is a score.
    """

    low: float
    high: float
    step: float | None = None

    @classmethod
    def of(cls, ends: Sequence[float], step: float | None) -> ScoreScale:
        """The scale of a declared range.

        Args:
            ends: The lowest and the highest score.
            step: Between two grades, or None.
        """
        low, high = ends
        return cls(low, high, step)

    def fault(self) -> str | None:
        """What is wrong with the scale itself; None where nothing is."""
        if not self.low < self.high:
            return f"score_range: [{self.low:g}, {self.high:g}] given; the lower end comes first"
        if self.step is None:
            return None
        steps = (self.high - self.low) / self.step
        if not 1 <= round(steps) < MOST_GRADES or abs(steps - round(steps)) > _CLOSE:
            return (
                f"score_step: {self.step:g} given; it must part {self.low:g} to {self.high:g} into "
                f"equal steps, at most {MOST_GRADES - 1} of them"
            )
        return None

    def problem(self, score: float) -> str | None:
        """Why a number is no score of the scale; None where it is one. Nothing is quoted."""
        if not self.low <= score <= self.high:
            return OUT_OF_RANGE
        if self.step is not None:
            steps = (score - self.low) / self.step
            if abs(steps - round(steps)) > _CLOSE:
                return BETWEEN_GRADES
        return None

    def share(self, score: float) -> float:
        """Where in the range a score lies, from 0 to 1."""
        return (score - self.low) / (self.high - self.low)

    def score(self, share: float) -> float:
        """The score at a share of the range."""
        return self.low + (self.high - self.low) * share

    def grade(self, score: float) -> int:
        """The number of the nearest grade, from 0; of a scale with steps."""
        assert self.step is not None
        return round((score - self.low) / self.step)

    def of_grade(self, grade: int) -> float:
        """The score of a grade; of a scale with steps."""
        assert self.step is not None
        return self.low + self.step * grade

    def __str__(self) -> str:
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{steps}"
