"""Speed and memory, as ratios within one run: `make bench`.

    python -m benchmarks [--texts FILE.jsonl …] [--fastdp FOLDER] [--json FILE] [--page FILE]

Each line is a figure, what it must reach, and whether it does. Machines are noisy: variants take
turns, and the median of the turns' ratios counts. Peers run in the same run: stock PEFT, Opacus,
fastDP if a checkout is given, Flower's stock simulation, and a FlowerTune-style exchange.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import (
    accounting,
    evidence,
    federation,
    isolation,
    kept_layers,
    ledger,
    memory,
    noise,
    peers,
    peft_steps,
    scrubbing,
    steps,
)
from benchmarks.document import add_outputs, document, write
from benchmarks.figure import Figure
from benchmarks.machine import machine


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--texts",
        nargs="+",
        default=["synthetic:hospitals"],
        help="records with text, label; all files are used beside other libraries, else the first",
    )
    parser.add_argument("--turns", type=int, default=5, help="how often each variant runs")
    parser.add_argument("--fastdp", type=Path, help="root of a checkout of fastDP's source")
    add_outputs(parser)
    asked = parser.parse_args()
    texts, turns = asked.texts[0], asked.turns
    beside = peers.Peers()
    parts: list[Callable[[], Iterable[Figure]]] = [
        accounting.figures,
        lambda: ledger.figures(texts),
        evidence.figures,
        lambda: noise.figures(turns),
        lambda: scrubbing.figures(turns),
        lambda: peft_steps.figures(turns),
        memory.figures,
        lambda: steps.figures(texts, turns),
        lambda: kept_layers.figures(texts, turns),
        lambda: isolation.figures([texts], turns),
        federation.figures,
        lambda: peers.measured(beside, asked.texts, turns, asked.fastdp, is_quick=False),
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
