"""Counts the scores of a file, their spread, and the rows without one."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from cloister.data.check.findings import FileFinding

# Different scores that are counted one by one; a scale of grades has fewer.
MOST_GRADES = 101


class ScoreSpread:
    """Counts scores without keeping them."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0
        self._ends = (math.inf, -math.inf)
        self._grades: Counter[float] | None = Counter()
        self._missing = FileFinding(
            "no-score", "rows have no score, or one that is not a number; they are left out"
        )

    def add(self, score: float | None, row: int) -> None:
        """Counts one row's score; None: it has none."""
        if score is None:
            self._missing.add(row)
            return
        self.count += 1
        self._sum += score
        self._ends = (min(self._ends[0], score), max(self._ends[1], score))
        if self._grades is not None:
            self._grades[score] += 1
            if len(self._grades) > MOST_GRADES:
                self._grades = None

    def findings(self) -> list[FileFinding]:
        """Returns what looks wrong with the scores."""
        found = [self._missing] if self._missing.count else []
        if self.count and self._ends[0] == self._ends[1]:
            found.append(FileFinding("one-score", "there is only one score; nothing to learn"))
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns minimum, maximum, mean and, if the different scores are few, each one's count."""
        grades = None if self._grades is None else sorted(self._grades.items())
        return {
            "count": self.count,
            "lowest": self._ends[0] if self.count else None,
            "highest": self._ends[1] if self.count else None,
            "mean": self._sum / self.count if self.count else None,
            "counts": None if grades is None else {f"{score:g}": n for score, n in grades},
        }
