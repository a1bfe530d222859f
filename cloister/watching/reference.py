"""The reference that windows are compared with: histograms, sorted numbers, directions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloister.errors import DataError
from cloister.watching.row import Features, StreamRow

# Answers that have a bin of their own; the rarer ones share one. Deciles are the convention for
# numbers, and 20 bins of answers keep PSI's mean without drift below 0.06 for windows of 500.
MOST_BINS = 20
DECILES = 10
OTHER = "any other"
# Rows that a reference may have: KS of more finds differences that matter to nobody.
MOST_REFERENCE = 20_000
# Least rows: below it ten bins have less than the five expected counts of a chi-square test.
FEWEST_REFERENCE = 50


@dataclass(frozen=True)
class Numbers:
    """A number in the reference.

    Attributes:
        ordered: Its values, ascending, float64 [N].
        edges: Between the bins of its histogram, [K − 1].
        counts: Of the bins, [K].
    """

    ordered: np.ndarray
    edges: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class DriftReference:
    """What windows are compared with.

    Attributes:
        rows: Its number of rows.
        categories: Of each name, the counts by answer.
        marks: Rows that have a mark, by mark, and under `OTHER` those that have a rarer one; None:
            the task has none.
        numbers: By name.
        directions: Unit vectors, [P, D]; None: its rows have no embeddings.
        digest: SHA-256 of what it was made of.
    """

    rows: int
    categories: Mapping[str, Mapping[str, int]]
    marks: Mapping[str, int] | None
    numbers: Mapping[str, Numbers]
    directions: np.ndarray | None
    digest: str


def make_reference(rows: Sequence[StreamRow], projections: int, seed: int) -> DriftReference:
    """Makes a reference of rows.

    Args:
        rows: Of the stream's form.
        projections: Directions on which embeddings are compared.
        seed: Of the directions.

    Raises:
        DataError: There are too few rows.
    """
    if len(rows) < FEWEST_REFERENCE:
        raise DataError(
            f"{len(rows)} rows of a reference given; at least {FEWEST_REFERENCE} are needed, and "
            "better as many as a window has"
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
    """A row's features, with its embedding's projections among the numbers.

    Args:
        row: The row.
        directions: [P, D]; None, or of another size than the embedding: there are no projections.
    """
    if directions is None or len(row.embedding) != directions.shape[1]:
        return row.features
    projected = directions @ np.array(row.embedding)
    numbers = {f"embedding {n + 1}": float(value) for n, value in enumerate(projected)}
    one = row.features
    return Features(one.categories, one.marks, {**one.numbers, **numbers})


def binned(reference: Mapping[str, int], found: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Two counts over the same bins: the reference's answers, and one for all others."""
    known = [name for name in reference if name != OTHER]
    others = sum(count for name, count in found.items() if name not in known)
    return (
        [*(reference[name] for name in known), reference.get(OTHER, 0)],
        [*(found.get(name, 0) for name in known), others],
    )


def histogram(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Counts of the bins that edges part, [K]; a value on an edge is of the upper bin."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def _common(counts: Counter[str]) -> dict[str, int]:
    common = dict(counts.most_common(MOST_BINS - 1))
    rest = counts.total() - sum(common.values())
    return {**common, OTHER: rest} if rest else common


def _common_marks(rows: Sequence[frozenset[str]]) -> dict[str, int]:
    """Rows that have a mark, by mark, and those that have one of the rare marks."""
    common = dict(Counter(mark for row in rows for mark in row).most_common(MOST_BINS - 1))
    return {**common, OTHER: sum(bool(row - common.keys()) for row in rows)}


def _numbers(values: np.ndarray) -> Numbers:
    ordered = np.sort(values)
    shares = np.arange(1, DECILES) / DECILES
    # Equal deciles, as of a number that is mostly 0, are one edge.
    edges = np.unique(np.quantile(ordered, shares))
    return Numbers(ordered, edges, histogram(edges, ordered))
