"""What a coordinator's arithmetic costs: Krum's distances, and the memory of a mean."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np

from benchmarks.figure import Figure
from benchmarks.repeated import cpu_ratio
from cloister.adapter.tensors import Adapter
from cloister.strategies.exact_sum import RunningMean
from cloister.strategies.nearest_updates import nearest, score

# Sites and values: distances one by one take quadratic time, 220 s for 1,000 sites.
SITES, VALUES = 60, 40_000
# Values of an update whose mean is taken: an adapter of 40 MB.
LARGE = 10_000_000


def figures(turns: int) -> Iterator[Figure]:
    """Yields the ratios; `turns`: how often each variant runs."""
    rng = np.random.default_rng(0)
    updates = {f"{n:03d}": Adapter({"x": rng.normal(size=VALUES)}) for n in range(SITES)}
    near, count = SITES - 10, 10
    name = f"Krum, {SITES} sites: distances one by one ÷ one product"
    value = cpu_ratio(
        lambda: sorted(sorted(updates), key=lambda site: score(updates, site, near))[:count],
        lambda: nearest(updates, near, count),
        turns,
    )
    yield Figure(name, value, 10, "at least")
    yield Figure("memory of a mean beside the updates ÷ one update", _memory(rng), 3.1, "at most")


def _memory(rng: np.random.Generator) -> float:
    update = Adapter({"x": rng.normal(size=LARGE).astype(np.float32) * np.float32(1e-3)})
    tracemalloc.start()
    try:
        running = RunningMean({})
        for site in range(3):
            running.add(str(site), update)
        running.take()
        return tracemalloc.get_traced_memory()[1] / (4 * LARGE)
    finally:
        tracemalloc.stop()
