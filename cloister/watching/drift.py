"""Finds drift of a window, by PSI and a test for each feature with a corrected level.

Every feature is tested once in each window. Its p-value must be at most α / (horizon · features)
(Bonferroni; Dunn 1961, Multiple comparisons among means). This bounds the probability of any false
finding in `horizon` windows by α for every kind of dependence. Independence cannot be assumed: all
windows share one reference, and features of a row depend on each other. So procedures for a false
discovery rate that need independence (Benjamini and Hochberg 1995) are not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.watching.config import DriftConfig
from cloister.watching.distances import chi_square, kolmogorov_smirnov, psi
from cloister.watching.reference import OTHER, DriftReference, binned, histogram
from cloister.watching.row import Features

# A feature is compared if at least this many rows of the window have it.
FEWEST = 20


@dataclass(frozen=True)
class DriftFigure:
    """The comparison of one feature in one window.

    Attributes:
        feature: The feature's name.
        test: The test's name.
        psi: The population stability index; for marks, the largest one.
        p: The p-value; None: there are too few rows to test.
        where: The answer or mark that changed most; empty for numbers.
    """

    feature: str
    test: str
    psi: float
    p: float | None
    where: str = ""


@dataclass(frozen=True)
class WindowFigures:
    """The figures of a closed window.

    Attributes:
        number: The window's number, from 1.
        rows: Number of its rows.
        first: Time of its first row, in seconds.
        last: Time of its last row.
        level: The largest p-value of a finding.
        figures: The figures of each feature.
    """

    number: int
    rows: int
    first: float
    last: float
    level: float
    figures: tuple[DriftFigure, ...]


def is_drift(figure: DriftFigure, level: float, config: DriftConfig) -> bool:
    """Returns whether the change is large and statistically significant."""
    return figure.p is not None and figure.p <= level and figure.psi >= config.psi_alert


def is_calm(figure: DriftFigure, config: DriftConfig) -> bool:
    """Returns whether the change is small enough to end an alert."""
    return figure.psi < config.psi_calm


def compare(
    reference: DriftReference,
    rows: Sequence[Features],
    times: tuple[float, float],
    number: int,
    config: DriftConfig,
) -> WindowFigures:
    """Compares a window with the reference.

    Args:
        reference: The reference.
        rows: The window's rows.
        times: The times of its first and last row.
        number: The window's number.
        config: The thresholds.
    """
    found = [*_categories(reference, rows), *_marks(reference, rows), *_numbers(reference, rows)]
    tested = sum(one.p is not None for one in found)
    level = config.false_alarm / config.horizon / max(tested, 1)
    return WindowFigures(number, len(rows), *times, level, tuple(found))


def _categories(reference: DriftReference, rows: Sequence[Features]) -> list[DriftFigure]:
    found = []
    for name, counts in reference.categories.items():
        answers = Counter(one.categories[name] for one in rows if name in one.categories)
        if answers.total() < FEWEST:
            continue
        before, after = binned(counts, answers)
        names = [*(one for one in counts if one != OTHER), OTHER]
        gaps = np.abs(np.array(after) / sum(after) - np.array(before) / sum(before))
        figure = psi(before, after), chi_square(before, after), names[int(gaps.argmax())]
        found.append(DriftFigure(name, "chi-square", *figure))
    return found


def _marks(reference: DriftReference, rows: Sequence[Features]) -> list[DriftFigure]:
    """Compares the marks of a window's rows.

    Marks of one row depend on each other, so each mark is tested by itself, and the smallest
    p-value is multiplied by the number of marks.
    """
    if reference.marks is None:
        return []
    counts = Counter(mark for one in rows for mark in one.marks or ())
    known = reference.marks.keys() - {OTHER}
    counts[OTHER] = sum(bool((one.marks or frozenset()) - known) for one in rows)
    each = []
    for mark, before in reference.marks.items():
        pair = (before, reference.rows - before), (counts[mark], len(rows) - counts[mark])
        each.append((psi(*pair), chi_square(*pair), mark))
    tests = [p for _, p, _ in each if p is not None]
    p = min(1.0, min(tests) * len(tests)) if tests else None
    largest = max(each, key=lambda one: one[0])
    return [DriftFigure("answers", "chi-square of each", largest[0], p, largest[2])]


def _numbers(reference: DriftReference, rows: Sequence[Features]) -> list[DriftFigure]:
    found = []
    for name, numbers in reference.numbers.items():
        values = np.array([one.numbers[name] for one in rows if name in one.numbers])
        if len(values) < FEWEST or len(numbers.ordered) < FEWEST:
            continue
        index = psi(numbers.counts.tolist(), histogram(numbers.edges, values).tolist())
        p = kolmogorov_smirnov(numbers.ordered, values)
        found.append(DriftFigure(name, "Kolmogorov-Smirnov", index, p))
    return found
