"""Ways to aggregate, at equal ε and equal local computation, each at its own learning rate.

    python simulations/aggregation/compare.py tune  --data FOLDER   rates, on the validation set
    python simulations/aggregation/compare.py run   --data FOLDER   the grid, on the test set
    python simulations/aggregation/compare.py table                 results as Markdown and plots

FOLDER holds rt_polarity/ and banking77/ with train, valid and test.jsonl each. Results are appended
to results.jsonl as they come; cells that are there already are not run again. `--shard 0/2` and
`--shard 1/2` share the grid between two processes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate

HERE = Path(__file__).parent
RESULTS, RATES = HERE / "results.jsonl", HERE / "rates.json"
# Tried for each method with 10 sites, IID, ε = 8, seed 0; the best on the validation set is used
# everywhere else too. Where A trains too, 1 diverges for most.
TRIED, TRIED_BOTH = (0.3, 1.0, 3.0), (0.1, 0.3, 1.0)

# One gradient a round for 20 rounds, a server optimizer with momentum.
GRADIENTS = ["training.mode=gradient-rounds", "federation.num_rounds=20",
             "federation.evaluate_every=20", "strategy.name=fedavgm",
             "strategy.momentum=0.5"]  # fmt: skip
# Four steps a round for 5 rounds: as many gradients, a quarter of the bytes.
STEPS = ["training.local_steps=4", "federation.num_rounds=5", "federation.evaluate_every=5"]
SHARED = [*GRADIENTS, "privacy.noise=shared", "privacy.missing_sites=0",
          "privacy.colluding_sites=1"]  # fmt: skip

METHODS: dict[str, list[str]] = {
    "private probe": [*GRADIENTS, "lora.train=none"],
    "gradient rounds, A and B": [*GRADIENTS, "lora.train=both"],
    "gradient rounds, B": [*GRADIENTS, "lora.train=b"],
    "gradient rounds, alternating": [*GRADIENTS, "lora.train=alternate"],
    "FedIT": [*STEPS, "lora.train=both"],
    "FFA-LoRA": [*STEPS, "lora.train=b"],
    "FedEx-LoRA": [*STEPS, "lora.train=both", "strategy.name=fedex", "lora.residual=40"],
    "FLoRA": [*STEPS, "lora.train=both", "strategy.name=flora", "lora.residual=40"],
    "FedSVD": [*STEPS, "lora.train=b-moving", "strategy.name=fedsvd"],
    "private probe, shared noise": [*SHARED, "lora.train=none"],
    "gradient rounds, A and B, shared noise": [*SHARED, "lora.train=both"],
    "gradient rounds, B, shared noise": [*SHARED, "lora.train=b"],
}
FLOOR = {False: "private probe", True: "private probe, shared noise"}
# Methods that train at the sites exactly as another one does take its rate.
RATE_OF = {"FedEx-LoRA": "FedIT", "FLoRA": "FedIT", "FedSVD": "FFA-LoRA",
           "gradient rounds, alternating": "gradient rounds, A and B"}  # fmt: skip


def is_shared(method: str) -> bool:
    """Whether its noise is shared among the sites."""
    return method.endswith("shared noise")


@dataclass(frozen=True)
class Cell:
    """One run of the grid; ε None: without privacy."""

    data: str
    sites: int
    partition: str
    epsilon: float | None
    method: str
    seed: int

    def recipe(self, folder: Path, rate: float, test: str) -> Recipe:
        """The study, at a learning rate, scored on a set."""
        privacy = (
            ["privacy.enabled=false", f"training.plain_learning_rate={rate}"]
            if self.epsilon is None
            else [f"privacy.epsilon={self.epsilon}"]
        )
        # Every site draws 12 % of its records a step, so all sites together draw as many whatever
        # their number is.
        records = SIZES[self.data] * 98 // 100 // self.sites
        data = folder / self.data
        return read_recipe(
            HERE / f"{self.data}.toml",
            [
                f"data.train='{data / 'train.jsonl'}'", f"data.test='{data / f'{test}.jsonl'}'",
                f"data.sites={self.sites}", f"data.partition={self.partition}", "data.alpha=0.3",
                f"data.public_records={records}",
                f"training.expected_batch_size={round(0.12 * records)}",
                f"study.seed={self.seed}", f"training.learning_rate={rate}",
                *privacy, *METHODS[self.method],
            ],
        )  # fmt: skip


# Training records.
SIZES = {"rt_polarity": 8530, "banking77": 9992}
SEEDS = (0, 1, 2)
# The settings, in the order in which they are run: a grid that is stopped early has whole ones.
SETTINGS: list[tuple[str, int, str, float | None, tuple[int, ...]]] = [
    ("rt_polarity", 10, "iid", 8.0, SEEDS),
    ("rt_polarity", 10, "iid", 1.0, SEEDS),
    ("rt_polarity", 10, "dirichlet", 8.0, SEEDS),
    ("rt_polarity", 3, "iid", 8.0, SEEDS),
    ("rt_polarity", 10, "iid", 3.0, (0,)),
    ("rt_polarity", 10, "iid", None, (0,)),
    ("rt_polarity", 3, "iid", 1.0, SEEDS),
    ("banking77", 10, "iid", 8.0, SEEDS),
    ("rt_polarity", 3, "dirichlet", 8.0, SEEDS),
]


def grid() -> Iterator[Cell]:
    """Every cell."""
    for data, sites, partition, epsilon, seeds in SETTINGS:
        for seed in seeds:
            for method in METHODS:
                if epsilon is not None or not is_shared(method):
                    yield Cell(data, sites, partition, epsilon, method, seed)


def score(recipe: Recipe) -> dict[str, Any]:
    """Accuracy, ε, bytes and aggregation error of one run, whose folder is thrown away."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", recipe)
        result = simulate(recipe, run)
        errors = [row["aggregation_error"] for row in run.metrics()]
    known = [error for error in errors if error is not None]
    return {
        "accuracy": result.test["accuracy"],
        "epsilon": max(site.epsilon for site in result.sites),
        "bytes": result.bytes_per_update,
        "rounds": result.rounds,
        "error": sum(known) / len(known) if known else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def tune(folder: Path, shard: tuple[int, int], data: str) -> None:
    """The best rate of each method."""
    own = [method for method in METHODS if method not in RATE_OF]
    for number, method in enumerate(own):
        if number % shard[1] != shard[0] or method in rates().get(data, {}):
            continue
        tried = {
            rate: score(Cell(data, 10, "iid", 8.0, method, 0).recipe(folder, rate, "valid"))[
                "accuracy"
            ]
            for rate in (TRIED_BOTH if "lora.train=both" in METHODS[method] else TRIED)
        }
        best = max(tried, key=lambda rate: tried[rate])
        _note_rate(data, method, {"best": best, "tried": tried})
        print(method, best, tried, flush=True)


def run(folder: Path, shard: tuple[int, int], data: str) -> None:
    """Every cell that has no result yet and whose rate is known."""
    done = {_key(row) for row in results()}
    for number, cell in enumerate(grid()):
        tuned = rates().get(cell.data, {}).get(RATE_OF.get(cell.method, cell.method))
        if number % shard[1] != shard[0] or _key(asdict(cell)) in done or cell.data != data:
            continue
        if tuned is None:
            print(f"{cell.method}: no rate yet, left out", flush=True)
            continue
        rate = tuned["best"]
        row = {**asdict(cell), "rate": rate}
        row["reached"] = score(cell.recipe(folder, rate, "test"))
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("data", "sites", "partition", "epsilon", "method", "seed"))


def rates() -> dict[str, dict[str, Any]]:
    """Rates by data set and method."""
    return json.loads(RATES.read_text()) if RATES.exists() else {}


def _note_rate(data: str, method: str, found: dict[str, Any]) -> None:
    with (HERE / ".rates.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = rates()
        known.setdefault(data, {})[method] = found
        RATES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def results() -> list[dict[str, Any]]:
    """Rows so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--set", choices=tuple(SIZES), default="rt_polarity")
    parser.add_argument("--shard", default="0/1")
    arguments = parser.parse_args()
    index, of = (int(part) for part in arguments.shard.split("/"))
    if arguments.what == "table":
        from table import write

        write(results(), HERE)
    else:
        work = tune if arguments.what == "tune" else run
        work(arguments.data.absolute(), (index, of), arguments.set)


if __name__ == "__main__":
    main()
