"""Seconds for the ε of a long ledger."""

import time
from collections.abc import Iterator

from benchmarks.figure import Figure
from cloister.privacy.accounting import COARSE, epsilon
from cloister.privacy.events import GaussianEvent

EVENTS, KINDS = 10_000, 30


def figures() -> Iterator[Figure]:
    epsilon([_event(0, 2.0)], 1e-5, COARSE)  # libraries are read before the clock starts
    ledger = [_event(i % KINDS) for i in range(EVENTS)]
    first = seconds(ledger)
    yield Figure(f"s for ε of {EVENTS} events of {KINDS} kinds", first, 2.0, "at most")


def seconds(events: list[GaussianEvent]) -> float:
    started = time.perf_counter()
    epsilon(events, 1e-5, COARSE)
    return time.perf_counter() - started


def _event(kind: int, noise_multiplier: float = 0.9) -> GaussianEvent:
    return GaussianEvent(
        noise_multiplier=noise_multiplier + kind / KINDS, sample_rate=0.005 + kind / 3000, steps=1
    )
