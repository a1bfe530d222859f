"""Drift of a window against the reference: PSI and a test for each feature, corrected for looks.

Each window tests every feature once. A feature's p-value must be at most α / (horizon · features)
(Bonferroni; Dunn 1961, Multiple comparisons among means). That bounds the probability of any false
finding in `horizon` windows by α under every dependence. Independence cannot be assumed here: all
windows share one reference, and features of a row depend on each other, so the procedures for a
false discovery rate that need it (Benjamini and Hochberg 1995) are not used.
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

# Rows of a window that must have a feature, so that it is compared.
FEWEST = 20


@dataclass(frozen=True)
class DriftFigure:
    """One feature of one window.

    Attributes:
        feature: Its name.
        test: The test's name.
        psi: The population stability index; of marks the largest one's.
        p: The p-value; None: too little to test.
        where: The answer or mark that changed most; empty for numbers.
    """

    feature: str
    test: str
    psi: float
    p: float | None
    where: str = ""


@dataclass(frozen=True)
class WindowFigures:
    """A closed window.

    Attributes:
        number: From 1 on.
        rows: Of the window.
        first: Time of its first row, in seconds.
        last: Time of its last row.
        level: The p-value at or below which a finding counts.
        figures: Of each feature.
    """

    number: int
    rows: int
    first: float
    last: float
    level: float
    figures: tuple[DriftFigure, ...]


def is_drift(figure: DriftFigure, level: float, config: DriftConfig) -> bool:
    """Whether the change is large, and more than chance explains."""
    return figure.p is not None and figure.p <= level and figure.psi >= config.psi_alert


def is_calm(figure: DriftFigure, config: DriftConfig) -> bool:
    """Whether the change is small."""
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
        reference: What it is compared with.
        rows: Of the window.
        times: Of its first and last row.
        number: Of the window.
        config: Thresholds.
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
    """Marks of one row depend on each other, so each is tested by itself, and the smallest p-value
    is multiplied by their number."""
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
