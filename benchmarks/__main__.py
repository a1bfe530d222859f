"""Speed and memory, as ratios within one run: `python -m benchmarks [--texts FILE.jsonl]`.

Each line is a figure, what it must reach, and whether it does. Machines are noisy: variants take
turns, and the median of the turns' ratios counts.
"""

import argparse

from benchmarks import (
    accounting,
    evidence,
    exchange,
    federation,
    isolation,
    ledger,
    memory,
    noise,
    peft_steps,
    scrubbing,
    steps,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    texts, turns = arguments.texts, arguments.turns
    for figures in (
        accounting.figures(),
        ledger.figures(texts),
        evidence.figures(),
        noise.figures(turns),
        scrubbing.figures(turns),
        peft_steps.figures(turns),
        memory.figures(),
        steps.figures(texts, turns),
        isolation.figures([texts], turns),
        federation.figures(),
        exchange.figures(),
    ):
        for figure in figures:
            print(figure, flush=True)


if __name__ == "__main__":
    main()
