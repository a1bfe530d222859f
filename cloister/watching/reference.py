"""Makes the reference of all windows: histograms, sorted numbers and random directions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloister.errors import DataError
from cloister.watching.row import Features, StreamRow

# Most answers with a bin of their own; rarer answers share one. Deciles are the convention for
# numbers. With 20 bins of answers, PSI's mean without drift is below 0.06 for windows of 500.
MOST_BINS = 20
DECILES = 10
OTHER = "any other"
# Most rows of a reference: with more rows, KS finds differences that do not matter in practice.
MOST_REFERENCE = 20_000
# Fewest rows: with fewer, ten bins have less than a chi-square test's five expected counts.
FEWEST_REFERENCE = 50


@dataclass(frozen=True)
class Numbers:
    """The distribution of one number in the reference.

    Attributes:
        ordered: Its values, ascending, float64 [N].
        edges: The edges between the bins of its histogram, [K − 1].
        counts: The counts of the bins, [K].
    """

    ordered: np.ndarray
    edges: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class DriftReference:
    """The reference of all windows.

    Attributes:
        rows: Its number of rows.
        categories: For each name, the counts by answer.
        marks: Number of rows with a mark, by mark; under `OTHER`, rows with a rare mark; None: the
            task has no marks.
        numbers: The distributions of numbers, by name.
        directions: Unit vectors, [P, D]; None: its rows have no embeddings.
        digest: SHA-256 of the rows and settings that it was made from.
    """

    rows: int
    categories: Mapping[str, Mapping[str, int]]
    marks: Mapping[str, int] | None
    numbers: Mapping[str, Numbers]
    directions: np.ndarray | None
    digest: str


def make_reference(rows: Sequence[StreamRow], projections: int, seed: int) -> DriftReference:
    """Makes a reference from rows.

    Args:
        rows: Rows in the stream's form.
        projections: Number of directions on which embeddings are compared.
        seed: The seed of the directions.

    Raises:
        DataError: There are too few rows.
    """
    if len(rows) < FEWEST_REFERENCE:
        raise DataError(
            f"{len(rows)} rows of a reference given; at least {FEWEST_REFERENCE} are needed (best "
            "as many as a window has)"
        )
    size = len(rows[0].embedding)
    directions = None
    if size and all(len(row.embedding) == size for row in rows):
        drawn = np.random.default_rng(seed).normal(size=(projections, size))
        directions = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    features = [measured(row, directions) for row in rows]
    names = {name for one in features for name in one.categories}
    categories = {
        name: _common(Counter(one.categories[name] for one in features if name in one.categories))
        for name in sorted(names)
    }
    marks: Mapping[str, int] | None = None
    if features[0].marks is not None:
        marks = _common_marks([one.marks or frozenset() for one in features])
    numbers = {
        name: _numbers(np.array([one.numbers[name] for one in features if name in one.numbers]))
        for name in sorted({name for one in features for name in one.numbers})
    }
    digest = hashlib.sha256(repr((features, projections, seed)).encode()).hexdigest()
    return DriftReference(len(rows), categories, marks, numbers, directions, digest)


def measured(row: StreamRow, directions: np.ndarray | None) -> Features:
    """Returns a row's features; the projections of its embedding are among the numbers.

    Args:
        row: The row.
        directions: Unit vectors, [P, D]; None, or another size than the embedding's: there are no
            projections.
    """
    if directions is None or len(row.embedding) != directions.shape[1]:
        return row.features
    projected = directions @ np.array(row.embedding)
    numbers = {f"embedding {n + 1}": float(value) for n, value in enumerate(projected)}
    one = row.features
    return Features(one.categories, one.marks, {**one.numbers, **numbers})


def binned(reference: Mapping[str, int], found: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Returns two counts over the same bins: the reference's answers, and one for all others."""
    known = [name for name in reference if name != OTHER]
    others = sum(count for name, count in found.items() if name not in known)
    return (
        [*(reference[name] for name in known), reference.get(OTHER, 0)],
        [*(found.get(name, 0) for name in known), others],
    )


def histogram(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the counts of the bins between edges, [K]; a value on an edge is in the upper bin."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def _common(counts: Counter[str]) -> dict[str, int]:
    common = dict(counts.most_common(MOST_BINS - 1))
    rest = counts.total() - sum(common.values())
    return {**common, OTHER: rest} if rest else common


def _common_marks(rows: Sequence[frozenset[str]]) -> dict[str, int]:
    """Returns the number of rows with each mark, and with one of the rare marks."""
    common = dict(Counter(mark for row in rows for mark in row).most_common(MOST_BINS - 1))
    return {**common, OTHER: sum(bool(row - common.keys()) for row in rows)}


def _numbers(values: np.ndarray) -> Numbers:
    ordered = np.sort(values)
    shares = np.arange(1, DECILES) / DECILES
    # Equal deciles (of a number that is mostly 0) become one edge.
    edges = np.unique(np.quantile(ordered, shares))
    return Numbers(ordered, edges, histogram(edges, ordered))
