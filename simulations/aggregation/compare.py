"""Ways to aggregate, at equal ε and equal local computation, each at its own learning rate.

    python simulations/aggregation/compare.py tune  --data FOLDER   rates, on the validation set
    python simulations/aggregation/compare.py run   --data FOLDER   the grid, on the test set
    python simulations/aggregation/compare.py table                 the results as Markdown

FOLDER holds train.jsonl, valid.jsonl and test.jsonl. Results are appended to results.jsonl as they
come; cells that are there already are not run again. `--shard 0/2` and `--shard 1/2` share the grid
between two processes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate

HERE = Path(__file__).parent
RESULTS, RATES = HERE / "results.jsonl", HERE / "rates.json"
SEEDS = (0, 1, 2)
# Tried for each method at ε = 8, IID, seed 0; the best on the validation set is used everywhere.
TRIED = (0.1, 0.3, 1.0, 3.0)

METHODS: dict[str, list[str]] = {
    "private probe": ["lora.train=none"],
    "private probe, momentum": ["lora.train=none", "strategy.name=fedavgm",
                                "strategy.momentum=0.5"],
    "FedIT": ["lora.train=both"],
    "FFA-LoRA": ["lora.train=b"],
    "alternating": ["lora.train=alternate"],
    "FFA-LoRA, momentum": ["lora.train=b", "strategy.name=fedavgm", "strategy.momentum=0.5"],
    "FFA-LoRA, 4 local steps": ["lora.train=b", "training.local_steps=4",
                                "federation.num_rounds=5", "federation.evaluate_every=5"],
    "FedIT, 4 local steps": ["lora.train=both", "training.local_steps=4",
                             "federation.num_rounds=5", "federation.evaluate_every=5"],
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    method: str
    epsilon: float | None
    partition: str
    seed: int

    def recipe(self, data: Path, rate: float, test: str) -> Recipe:
        """The study, at a learning rate, scored on a set."""
        privacy = (
            ["privacy.enabled=false"] if self.epsilon is None
            else [f"privacy.epsilon={self.epsilon}"]
        )  # fmt: skip
        return read_recipe(
            HERE / "base.toml",
            [
                f"data.train='{data / 'train.jsonl'}'", f"data.test='{data / f'{test}.jsonl'}'",
                "data.sites=4", f"data.partition={self.partition}", "data.alpha=0.3",
                "data.public_records=2100", f"study.seed={self.seed}",
                f"training.learning_rate={rate}", *privacy, *METHODS[self.method],
            ],
        )  # fmt: skip


def grid() -> Iterator[Cell]:
    """Every cell, cheapest questions first."""
    for seed, epsilon, partition in itertools.product(SEEDS, (8.0, 1.0), ("iid", "dirichlet")):
        for method in METHODS:
            yield Cell(method, epsilon, partition, seed)


def score(recipe: Recipe) -> dict[str, float]:
    """Accuracy, ε and bytes of one run, whose folder is thrown away."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(recipe, RunDirectory.create(Path(folder) / "run", recipe))
    return {
        "accuracy": result.test["accuracy"],
        "epsilon": max(site.epsilon for site in result.sites),
        "bytes": result.bytes_per_update,
        "seconds": round(time.monotonic() - started, 1),
    }


def tune(data: Path, shard: tuple[int, int]) -> None:
    """The best rate of each method."""
    for number, method in enumerate(METHODS):
        if number % shard[1] != shard[0] or method in _rates():
            continue
        tried = {
            rate: score(Cell(method, 8.0, "iid", 0).recipe(data, rate, "valid"))["accuracy"]
            for rate in TRIED
        }
        best = max(tried, key=lambda rate: tried[rate])
        rates = {**_rates(), method: {"best": best, "tried": tried}}
        RATES.write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")
        print(method, best, tried, flush=True)


def run(data: Path, shard: tuple[int, int]) -> None:
    """Every cell that has no result yet."""
    done = {(r["method"], r["epsilon_asked"], r["partition"], r["seed"]) for r in _results()}
    for number, cell in enumerate(grid()):
        key = (cell.method, cell.epsilon, cell.partition, cell.seed)
        if number % shard[1] != shard[0] or key in done:
            continue
        found = score(cell.recipe(data, _rates()[cell.method]["best"], "test"))
        row = {"method": cell.method, "epsilon_asked": cell.epsilon, "partition": cell.partition,
               "seed": cell.seed, **found}  # fmt: skip
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table() -> str:
    """Mean and standard deviation over seeds, and the paired difference to the probe."""
    rows = _results()
    lines = [
        "| method | ε | partition | accuracy | seeds | minus the probe, paired | bytes an update |",
        "|---|---|---|---|---|---|---|",
    ]
    for epsilon, partition in itertools.product((8.0, 1.0), ("iid", "dirichlet")):
        chosen = [r for r in rows if (r["epsilon_asked"], r["partition"]) == (epsilon, partition)]
        probe = {r["seed"]: r["accuracy"] for r in chosen if r["method"] == "private probe"}
        for method in METHODS:
            mine = {r["seed"]: r for r in chosen if r["method"] == method}
            if not mine:
                continue
            scores = [r["accuracy"] for r in mine.values()]
            apart = [r["accuracy"] - probe[seed] for seed, r in mine.items() if seed in probe]
            lines.append(
                f"| {method} | {epsilon:g} | {partition} | {_spread(scores)} | {len(scores)} | "
                f"{_spread(apart, sign=True)} | {max(r['bytes'] for r in mine.values()):,} |"
            )
    return "\n".join(lines)


def _spread(values: list[float], *, sign: bool = False) -> str:
    if not values:
        return "–"
    mean = statistics.mean(values)
    shown = f"{mean:+.4f}" if sign else f"{mean:.4f}"
    return shown + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _rates() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(RATES.read_text()) if RATES.exists() else {}
    return found


def _results() -> list[dict[str, float]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--shard", default="0/1")
    arguments = parser.parse_args()
    index, of = (int(part) for part in arguments.shard.split("/"))
    if arguments.what == "table":
        print(table())
    else:
        (tune if arguments.what == "tune" else run)(arguments.data.absolute(), (index, of))


if __name__ == "__main__":
    main()
