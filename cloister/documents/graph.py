"""A graph of neighbouring vectors, for more passages than an exact search is for.

usearch's HNSW (Malkov and Yashunin 2018, arXiv:1603.09320) finds most of the nearest passages
without a look at all of them. Which it misses depends on the vectors, so its recall against an
exact search is measured when an index is built and kept with it.

Shapes: K passages, H coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloister.documents.encoder import Vectors
from cloister.documents.graph_file import check_graph_file
from cloister.errors import UsageError
from cloister.files import identity_of

# Of a graph: M and ef of the paper's section 4.1, which calls M from 5 to 48 reasonable; ef of a
# search is raised from usearch's 64, for recall.
NEIGHBOURS, EF_BUILD, EF_SEARCH = 16, 128, 256
# Candidates of a search are at least so many; their cosines are then computed exactly.
FEWEST = 64
# Passages whose neighbours are looked for to measure recall, and how many neighbours.
MEASURED, TOP = 100, 10


@dataclass(frozen=True)
class NeighbourGraph:
    """Neighbours among K vectors.

    Attributes:
        index: usearch's.
        recall: The share of the ten nearest passages that it found of passages of its own.
    """

    index: Any
    recall: float

    def candidates(self, query: Vectors, top: int) -> list[int]:
        """Places of passages that are probably nearest to a query, in ascending order.

        Args:
            query: Its vector, [H].
            top: How many are wanted; more are given, since the order is not exact.
        """
        found = self.index.search(query, max(FEWEST, 2 * top), threads=1)
        return sorted(int(place) for place in found.keys)


def check_usearch(passages: int) -> None:
    """Refuses so many passages where usearch is not installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import usearch.index  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"more than {passages:,} passages are searched by a graph, and usearch is not "
            "installed: pip install 'cloister[search]', or index a part of the documents"
        ) from error


def make_graph(vectors: Vectors, seed: int = 0) -> NeighbourGraph:
    """Links vectors to their neighbours, and measures how many nearest ones a search finds.

    Args:
        vectors: [K, H], rows of length 1; more than `TOP` of them.
        seed: Of the choice of the passages that recall is measured with.
    """
    graph = _empty(vectors.shape[1])
    graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
    return NeighbourGraph(graph, _recall(NeighbourGraph(graph, 0.0), vectors, seed))


def _recall(graph: NeighbourGraph, vectors: Vectors, seed: int) -> float:
    draw = np.random.default_rng(seed)
    drawn = draw.choice(len(vectors), min(MEASURED, len(vectors)), replace=False)
    shares = []
    for place in drawn:
        scores = vectors @ vectors[place]
        scores[place] = -np.inf  # it finds itself
        best = np.argpartition(-scores, TOP)[:TOP]
        shares.append(len({*best.tolist()} & {*graph.candidates(vectors[place], TOP + 1)}) / TOP)
    return float(np.mean(shares))


def read_graph(path: Path, vectors: Vectors, recall: float) -> NeighbourGraph:
    """Reads a graph.

    Args:
        path: Its file, which is not trusted.
        vectors: [K, H].
        recall: As it was measured.

    Raises:
        UsageError: usearch is not installed.
        ValueError: It is none, one of other vectors, or was changed meanwhile.
        OSError: It cannot be read.
    """
    passages, width = vectors.shape
    check_usearch(passages - 1)
    graph = _empty(width)
    stamp = identity_of(path)
    check_graph_file(path, vectors, NEIGHBOURS)
    try:
        graph.load(str(path))
    except Exception as error:  # usearch raises errors of several types
        raise ValueError(f"{path.name} cannot be read ({error})") from error
    if len(graph) != passages or graph.ndim != width or identity_of(path) != stamp:
        raise ValueError(f"{path.name} was changed while it was read")
    return NeighbourGraph(graph, recall)


def _empty(width: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=width,
        metric="ip",
        dtype="f32",
        connectivity=NEIGHBOURS,
        expansion_add=EF_BUILD,
        expansion_search=EF_SEARCH,
    )
