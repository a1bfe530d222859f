"""Searches many passages approximately, by a graph of neighbouring vectors.

usearch's HNSW (Malkov and Yashunin 2018, arXiv:1603.09320) finds most of the nearest passages
without comparing all of them. How many it misses depends on the vectors, so its recall against an
exact search is measured when the index is built and stored with it.

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

# Parameters M and ef of the graph (section 4.1 of the paper: M from 5 to 48 is reasonable). ef of a
# search is larger than usearch's default of 64, for a better recall.
NEIGHBOURS, EF_BUILD, EF_SEARCH = 16, 128, 256
# Least number of candidates in a search; their cosines are then computed exactly.
FEWEST = 64
# To measure recall: number of sampled passages, and number of neighbours of each.
MEASURED, TOP = 100, 10


@dataclass(frozen=True)
class NeighbourGraph:
    """A graph that links each of K vectors to its neighbours.

    Attributes:
        index: usearch's index.
        recall: Share of the ten nearest passages that a search finds, measured on sampled
            passages of the index.
    """

    index: Any
    recall: float

    def candidates(self, query: Vectors, top: int) -> list[int]:
        """Returns the positions of passages that are probably nearest to a query, ascending.

        Args:
            query: The query's vector, [H].
            top: How many are wanted. More are returned, because the graph's order is not exact.
        """
        found = self.index.search(query, max(FEWEST, 2 * top), threads=1)
        return sorted(int(place) for place in found.keys)


def check_usearch(passages: int) -> None:
    """Refuses an index that needs a graph if usearch is not installed.

    Raises:
        UsageError: usearch is not installed.
    """
    try:
        import usearch.index  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"searching more than {passages:,} passages needs usearch, which is not installed; "
            "run pip install 'cloister[search]', or index a part of the documents"
        ) from error


def make_graph(vectors: Vectors, seed: int = 0) -> NeighbourGraph:
    """Links vectors to their neighbours, and measures how many nearest ones a search finds.

    Args:
        vectors: [K, H], rows of length 1; more than `TOP` of them.
        seed: Seed of the choice of passages with which recall is measured.
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
        scores[place] = -np.inf  # a passage is its own nearest neighbour; leave it out
        best = np.argpartition(-scores, TOP)[:TOP]
        shares.append(len({*best.tolist()} & {*graph.candidates(vectors[place], TOP + 1)}) / TOP)
    return float(np.mean(shares))


def read_graph(path: Path, vectors: Vectors, recall: float) -> NeighbourGraph:
    """Reads a graph from its file, after `check_graph_file` checked the file.

    Args:
        path: The file, which is not trusted.
        vectors: The index's vectors, [K, H].
        recall: The recall that was measured when the index was built.

    Raises:
        UsageError: usearch is not installed.
        ValueError: The file is not a graph of these vectors, or was changed while it was read.
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
