"""All peers in one run, interleaved: steps of other libraries, simulations, and an exchange.

    python -m benchmarks.peers [--texts FILE.jsonl …] [--quick] [--fastdp FOLDER]

`--quick` leaves the whole simulations out, and measures one batch size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import exchange, peer_simulations, peer_steps
from benchmarks.figure import Figure

# Batches, and sites, of the goals in README.md.
BATCHES, SITES, ROUNDS = (64, 300), (10, 50), 5
QUICK_BATCHES = (64,)


@dataclass(frozen=True)
class Side:
    """What one side of one comparison took; medians over turns.

    Attributes:
        work: The comparison.
        name: The side.
        cpu: CPU seconds.
        wall: Wall seconds.
        peak: Most bytes of memory; 0: not measured.
    """

    work: str
    name: str
    cpu: float
    wall: float
    peak: int = 0


@dataclass
class Peers:
    """The peers' figures.

    Attributes:
        figures: Theirs over ours.
        sides: Each side's times.
        not_run: Why a side was not measured, by its name.
    """

    figures: list[Figure] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)


def steps(
    peers: Peers, texts: str, count: int, turns: int, fastdp: Path | None
) -> Iterator[Figure]:
    """Measures the steps on one batch; yields its figures as they come."""
    taken, absent = peer_steps.measured(texts, count, turns, fastdp)
    work = f"step, {Path(texts).parent.name or texts}, B = {count}"
    peers.sides += [Side(work, name, one.cpu, one.wall) for name, one in taken.items()]
    peers.not_run |= absent
    for figure in peer_steps.figures(texts, count, taken):
        peers.figures.append(figure)
        yield figure


def simulations(peers: Peers, texts: str, sites: int, turns: int) -> Iterator[Figure]:
    """Measures whole simulations; yields their figures."""
    asked = peer_simulations.Work(texts, sites, ROUNDS)
    found, absent = peer_simulations.measured(asked, turns)
    work = f"simulation, {sites} sites, {ROUNDS} rounds"
    for name, used in found.items():
        cpu, wall = median(one.cpu for one in used), median(one.wall for one in used)
        peers.sides.append(Side(work, name, cpu, wall, int(median(one.peak for one in used))))
    peers.not_run |= absent
    for figure in peer_simulations.figures(sites, found):
        peers.figures.append(figure)
        yield figure


def measured(
    peers: Peers, texts: Sequence[str], turns: int, fastdp: Path | None, *, is_quick: bool
) -> Iterator[Figure]:
    """Measures everything; yields each figure as it comes, and keeps all in `peers`.

    Args:
        peers: Filled.
        texts: Files of records with text and label.
        turns: How often each step runs; a whole simulation runs a third as often.
        fastdp: Root of a checkout of fastDP's source; None: it is not run.
        is_quick: Whether whole simulations are left out.
    """
    exchanged = list(exchange.figures())
    peers.figures += exchanged
    yield from exchanged
    for one in texts:
        for count in QUICK_BATCHES if is_quick else BATCHES:
            yield from steps(peers, one, count, turns, fastdp)
    if is_quick:
        peers.not_run["whole simulations"] = "left out of the quick run; make bench has them"
        return
    for sites in SITES:
        yield from simulations(peers, texts[0], sites, max(1, turns // 3))


def main() -> None:
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", nargs="+", default=["synthetic:hospitals"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="no whole simulations")
    parser.add_argument("--fastdp", type=Path, help="root of a checkout of fastDP's source")
    asked = parser.parse_args()
    peers = Peers()
    for figure in measured(peers, asked.texts, asked.turns, asked.fastdp, is_quick=asked.quick):
        print(figure, flush=True)
    for side in peers.sides:
        print(f"{side.work}: {side.name}: {side.cpu:.3f} CPU s, {side.wall:.3f} s")
    for name, why in peers.not_run.items():
        print(f"{name}: not run: {why}")


if __name__ == "__main__":
    main()
