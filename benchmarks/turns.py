"""Several variants measured in turns, in CPU time of this process and beside it in wall time.

Other processes disturb a measurement. So all variants take one turn after the other, and what
counts is the median over turns of the ratio within one turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Taken:
    """What one variant took in each turn.

    Attributes:
        cpu_seconds: CPU time of the process, by turn.
        wall_seconds: Wall time, by turn.
    """

    cpu_seconds: tuple[float, ...]
    wall_seconds: tuple[float, ...]

    @property
    def cpu(self) -> float:
        """Median CPU seconds."""
        return statistics.median(self.cpu_seconds)

    @property
    def wall(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall_seconds)

    def __truediv__(self, other: Taken) -> float:
        """Median over turns of this one's CPU time over another's in the same turn."""
        pairs = zip(self.cpu_seconds, other.cpu_seconds, strict=True)
        return statistics.median(one / two for one, two in pairs)


def in_turns(variants: Mapping[str, Callable[[], object]], turns: int) -> dict[str, Taken]:
    """Runs each variant once to warm up, and then all of them in turns.

    Args:
        variants: By name, in the order of a turn.
        turns: How often each runs; at least 1.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, work in variants.items():
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            if turn:
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: Taken(tuple(cpu for cpu, _ in pairs), tuple(wall for _, wall in pairs))
        for name, pairs in times.items()
    }
