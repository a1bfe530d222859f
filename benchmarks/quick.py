"""The figures that a user feels most, in minutes: `make bench-quick`.

Prints a table of ratios of CPU time within this run, each with its goal; `--json FILE` writes them
with the machine and its load, `--page FILE` a page with plots.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import cut, peers, repeated, server_arithmetic, start
from benchmarks.document import add_outputs, document, write
from benchmarks.figure import Figure
from benchmarks.machine import machine

# Turns of the slowest part, which starts whole processes: five would take half of the 15 minutes.
START_TURNS = 3


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--turns", type=int, default=5, help="how often each variant runs")
    parser.add_argument("--fastdp", type=Path, help="root of a checkout of fastDP's source")
    add_outputs(parser)
    asked = parser.parse_args()
    beside = peers.Peers()
    parts: list[Callable[[], Iterator[Figure]]] = [
        lambda: peers.measured(beside, [asked.texts], asked.turns, asked.fastdp, is_quick=True),
        lambda: start.figures(min(asked.turns, START_TURNS)),
        lambda: cut.figures(asked.texts),
        lambda: repeated.figures(asked.texts, asked.turns),
        lambda: server_arithmetic.figures(asked.turns),
    ]
    before, found = machine(), []
    for part in parts:
        for figure in part():
            print(figure, flush=True)
            found.append(figure)
    for name, why in beside.not_run.items():
        print(f"{name}: not run: {why}")
    write(asked, document(before, found, beside))


if __name__ == "__main__":
    main()
