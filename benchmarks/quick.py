"""The figures that a user feels most, in minutes: `make bench-quick`.

Prints a table of ratios of CPU time within this run, each with its goal; `--json FILE` writes them
with the machine and its load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import cut, repeated, server_arithmetic, start
from benchmarks.figure import Figure


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--turns", type=int, default=5, help="how often each variant runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    parts: list[Callable[[], Iterator[Figure]]] = [
        lambda: start.figures(arguments.turns),
        lambda: cut.figures(arguments.texts),
        lambda: repeated.figures(arguments.texts, arguments.turns),
        lambda: server_arithmetic.figures(arguments.turns),
    ]
    before, found = machine(), []
    for part in parts:
        for figure in part():
            print(figure, flush=True)
            found.append(figure)
    if arguments.json is not None:
        about = {"machine": before, "figures": [asdict(figure) for figure in found]}
        arguments.json.write_text(json.dumps(about, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
