"""Search among many passages: a graph's recall and time beside an exact search.

    python -m benchmarks.search --passages 120000

Vectors are made up: passages around centres, fifty to each, as pieces of documents on one subject
lie, with 384 coordinates. Times are of one thread, in CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from cloister.documents.encoder import Vectors
from cloister.documents.graph import make_graph
from cloister.documents.index import Index, Passage

WIDTH, A_CENTRE, SPREAD = 384, 50, 0.7
QUERIES, TOP = 200, 10


def made_up(passages: int) -> Vectors:
    """Vectors of length 1, float32 [K, H]."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(max(passages // A_CENTRE, 1), WIDTH)).astype(np.float32)
    found = centres[draw.integers(0, len(centres), passages)]
    found += SPREAD * draw.standard_normal(size=found.shape, dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=120_000)
    vectors = made_up(parser.parse_args(arguments).passages)
    places = [Passage("", None, "", at, "") for at in range(len(vectors))]
    started = time.process_time()
    graph = make_graph(vectors)
    print(f"{len(vectors):,} passages: graph of {graph.index.memory_usage / 1e6:.0f} MB with them")
    print(f"made in {time.process_time() - started:.0f} CPU s; recall as stated {graph.recall:.3f}")
    draw = np.random.default_rng(1)
    queries = vectors[draw.integers(0, len(vectors), QUERIES)]
    queries = queries + SPREAD / WIDTH**0.5 * draw.standard_normal(queries.shape, dtype=np.float32)
    exact, by_graph = Index("", "", {}, places, vectors), Index("", "", {}, places, vectors, graph)
    found = {}
    for name, index in (("exact", exact), ("graph", by_graph)):
        started = time.process_time()
        found[name] = [{h.passage.start for h in index.search(q, TOP)} for q in queries]
        each = (time.process_time() - started) / QUERIES
        print(f"{name}: {1000 * each:.2f} ms a query")
    shares = [len(a & b) / TOP for a, b in zip(found["exact"], found["graph"], strict=True)]
    print(f"recall of the {TOP} nearest: {np.mean(shares):.4f}")


if __name__ == "__main__":
    main()
