"""Ways to aggregate, at equal ε and equal local computation, each at its own learning rate.

    python simulations/aggregation/compare.py all --data FOLDER --processes 2

does all of it; one by one it is

    tune    the rate of each method, data set and ε, on the validation set (tuning.jsonl)
    run     the grid, on the test set (results.jsonl)
    table   results as Markdown and plots

FOLDER holds rt_polarity/ and banking77/ with train.jsonl and test.jsonl each, and valid.jsonl where
the set has one; else every tenth training record is held out to tune on. Scores are appended as
they come, and what is there already is not run again: empty both files to begin anew. `--shard 0/2`
and `--shard 1/2` share one step between two processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import rates
from rates import Tuned

from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
# Where the climb begins at ε = 8; elsewhere with what was found there.
FIRST = 0.3

# One gradient a round, a server optimizer with momentum.
GRADIENTS = [
    "training.mode=gradient-rounds",
    "training.local_steps=1",
    "strategy.name=fedavgm",
    "strategy.momentum=0.5",
]
# Four steps a round in a quarter of the rounds: as many gradients, a quarter of the bytes.
LOCAL_STEPS = 4
STEPS = ["training.mode=local-steps", f"training.local_steps={LOCAL_STEPS}", "strategy.name=fedavg"]
SHARED = [
    *GRADIENTS,
    "privacy.noise=shared",
    "privacy.missing_sites=0",
    "privacy.colluding_sites=1",
]

METHODS: dict[str, list[str]] = {
    "private probe": [*GRADIENTS, "lora.train=none"],
    "gradient rounds, A and B": [*GRADIENTS, "lora.train=both"],
    "gradient rounds, B": [*GRADIENTS, "lora.train=b"],
    "gradient rounds, alternating": [*GRADIENTS, "lora.train=alternate"],
    "FedIT": [*STEPS, "lora.train=both"],
    "FFA-LoRA": [*STEPS, "lora.train=b"],
    "RoLoRA": [*STEPS, "lora.train=alternate"],
    "FedEx-LoRA": [*STEPS, "lora.train=both", "strategy.name=fedex", "lora.residual=40"],
    "FLoRA": [*STEPS, "lora.train=both", "strategy.name=flora", "lora.residual=40"],
    "FedSVD": [*STEPS, "lora.train=b-moving", "strategy.name=fedsvd"],
    "private probe, shared noise": [*SHARED, "lora.train=none"],
    "gradient rounds, A and B, shared noise": [*SHARED, "lora.train=both"],
    "gradient rounds, B, shared noise": [*SHARED, "lora.train=b"],
}


@dataclass(frozen=True)
class Study:
    """What runs of one data set and length have in common.

    Attributes:
        folder: Of the data set, and name of its recipe here.
        gradients: That every site takes.
        sample_rate: Of its records in each.
        methods: Which are compared.
        fixed: Scale and rate by method, where they are set beforehand; none: each method's rate is
            climbed to.
    """

    folder: str
    gradients: int = 20
    sample_rate: float = 0.12
    methods: tuple[str, ...] = tuple(METHODS)
    fixed: Mapping[str, Tuned] = field(default_factory=dict)


# Found in an emulation on the validation set: the probe's rates on five seeds, the adapters' on one
# or two.
LONG = {
    "private probe": Tuned(8.0, 0.3),
    "gradient rounds, B": Tuned(128.0, 0.3),
    "private probe, shared noise": Tuned(8.0, 1.0),
    "gradient rounds, B, shared noise": Tuned(128.0, 0.3),
}
STUDIES = {
    "rt_polarity": Study("rt_polarity"),
    "banking77": Study("banking77"),
    # Some methods without privacy, whose rates are others.
    "rt_polarity, plain": Study(
        "rt_polarity",
        methods=(
            "private probe",
            "gradient rounds, A and B",
            "gradient rounds, B",
            "FedIT",
            "FedEx-LoRA",
        ),
    ),
    # Nearly four times the computation, and adapters of sixteen times the scale.
    "rt_polarity, long": Study(
        "rt_polarity", gradients=30, sample_rate=0.3, methods=tuple(LONG), fixed=LONG
    ),
}
FLOOR = {False: "private probe", True: "private probe, shared noise"}


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

    def recipe(self, train: Path, test: Path, tuned: Tuned) -> Recipe:
        """The study, at a rate and scale, scored on a set."""
        privacy = (
            "privacy.enabled=false" if self.epsilon is None else f"privacy.epsilon={self.epsilon}"
        )
        study, options = STUDIES[self.data], METHODS[self.method]
        rounds = study.gradients // (LOCAL_STEPS if options[: len(STEPS)] == STEPS else 1)
        # Every site draws a part of its records, so all sites together draw as many whatever their
        # number is. The declared sizes are a little below the true ones.
        records = len(train.read_text(encoding="utf-8").splitlines()) * 98 // 100 // self.sites
        return read_recipe(
            HERE / f"{study.folder}.toml",
            [
                f"data.train='{train}'",
                f"data.test='{test}'",
                f"data.sites={self.sites}",
                f"data.partition={self.partition}",
                "data.alpha=0.3",
                f"data.public_records={records}",
                f"training.expected_batch_size={round(study.sample_rate * records)}",
                f"federation.num_rounds={rounds}",
                f"federation.evaluate_every={rounds}",
                f"study.seed={self.seed}",
                f"training.learning_rate={tuned.rate}",
                f"lora.alpha={tuned.alpha}",
                privacy,
                *options,
            ],
        )


LEVELS = ("8", "1", "none")  # of ε, at which rates are looked for
SEEDS = (0, 1, 2)
# The settings, in the order in which they are run: a grid that is stopped early has whole ones.
SETTINGS: list[tuple[str, int, str, float | None, tuple[int, ...]]] = [
    ("rt_polarity", 10, "iid", 8.0, SEEDS),
    ("rt_polarity", 10, "iid", 1.0, SEEDS),
    ("rt_polarity", 10, "iid", 3.0, (0,)),
    ("rt_polarity", 10, "dirichlet", 8.0, SEEDS),
    ("rt_polarity", 3, "iid", 8.0, SEEDS),
    ("rt_polarity, plain", 10, "iid", None, (0,)),
    ("banking77", 10, "iid", 8.0, (0,)),
    ("banking77", 10, "iid", 1.0, (0,)),
    ("rt_polarity, long", 10, "iid", 8.0, SEEDS),
]


def grid() -> Iterator[Cell]:
    """Every cell."""
    for data, sites, partition, epsilon, seeds in SETTINGS:
        for seed in seeds:
            for method in STUDIES[data].methods:
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


def tuned_for(cell: Cell) -> Tuned | None:
    """What a cell runs at: fixed, or known once the climb to it has ended."""
    if STUDIES[cell.data].fixed:
        return STUDIES[cell.data].fixed[cell.method]
    scores = rates.tried(cell.data, cell.epsilon, cell.method)
    if not scores or rates.next_try(scores, FIRST) is not None:
        return None
    return rates.best(scores)


def to_tune_on(folder: Path, into: Path) -> tuple[Path, Path]:
    """Training and validation files of a set, made where it has no validation file."""
    train, valid = folder / "train.jsonl", folder / "valid.jsonl"
    if valid.exists():
        return train, valid
    lines = train.read_text(encoding="utf-8").splitlines(keepends=True)
    train, valid = into / "train.jsonl", into / "valid.jsonl"
    train.write_text("".join(line for i, line in enumerate(lines) if i % 10), encoding="utf-8")
    valid.write_text("".join(lines[::10]), encoding="utf-8")
    return train, valid


def tune(folder: Path, shard: tuple[int, int], data: str, epsilon: float | None) -> None:
    """The rate of each method with ten sites, IID, seed 0."""
    study = STUDIES[data]
    methods = [method for method in study.methods if epsilon is not None or not is_shared(method)]
    with tempfile.TemporaryDirectory() as into:
        train, valid = to_tune_on(folder / study.folder, Path(into))
        for method in methods[shard[0] :: shard[1]]:
            cell = Cell(data, 10, "iid", epsilon, method, 0)

            at_8 = tuned_for(replace(cell, epsilon=8.0)) if epsilon != 8.0 else None
            first = at_8.rate if at_8 else FIRST
            scores = rates.tried(data, epsilon, method)
            while (at := rates.next_try(scores, first)) is not None:
                scores[at] = float(score(cell.recipe(train, valid, at))["accuracy"])
                rates.note(data, epsilon, method, at, scores[at])
            print(method, rates.best(scores), len(scores), "tried", flush=True)


def run(folder: Path, shard: tuple[int, int], data: str) -> None:
    """Every cell that has no result yet at what its climb ended on."""
    done = {(_key(row), Tuned(row["alpha"], row["rate"])) for row in results()}
    for number, cell in enumerate(grid()):
        if number % shard[1] != shard[0] or cell.data != data:
            continue
        at = tuned_for(cell)
        if at is None:
            print(f"{cell}: not tuned yet, left out", flush=True)
            continue
        if (_key(asdict(cell)), at) in done:
            continue
        row = {**asdict(cell), **at._asdict()}
        of = folder / STUDIES[cell.data].folder
        row["reached"] = score(cell.recipe(of / "train.jsonl", of / "test.jsonl", at))
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("data", "sites", "partition", "epsilon", "method", "seed"))


def results() -> list[dict[str, Any]]:
    """Rows so far, of every rate and scale that was ever a method's."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def as_tuned() -> list[dict[str, Any]]:
    """Rows of the grid's cells at what the climbs ended on."""
    cells = {_key(asdict(cell)): tuned_for(cell) for cell in grid()}
    return [row for row in results() if cells.get(_key(row)) == (row["alpha"], row["rate"])]


def everything(folder: Path, processes: int) -> None:
    """Tunes, runs and writes the tables, each step in so many processes at once."""
    for data, study in STUDIES.items():
        levels = {rates.level(of) for name, _, _, of, _ in SETTINGS if name == data}
        # ε = 8 first, where the others begin; none where all is fixed.
        for epsilon in sorted(levels, key=LEVELS.index) if not study.fixed else ():
            _in_processes(
                processes, "tune", "--data", str(folder), "--set", data, "--epsilon", epsilon
            )
        _in_processes(processes, "run", "--data", str(folder), "--set", data)
    _in_processes(1, "table")


def _in_processes(count: int, *arguments: str) -> None:
    running = [
        subprocess.Popen([sys.executable, __file__, *arguments, "--shard", f"{index}/{count}"])
        for index in range(count)
    ]
    if any(process.wait() for process in running):
        sys.exit(f"compare.py {' '.join(arguments)} failed; what was scored is kept")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("all", "tune", "run", "table"))
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--set", choices=tuple(STUDIES), default="rt_polarity")
    parser.add_argument("--epsilon", choices=LEVELS, default="8", help="of tune")
    parser.add_argument("--shard", default="0/1", help="of tune and run")
    parser.add_argument("--processes", type=int, default=1, help="of all")
    arguments = parser.parse_args()
    index, of = (int(part) for part in arguments.shard.split("/"))
    if arguments.what == "table":
        from table import write

        write(as_tuned(), HERE)
    elif arguments.what == "all":
        everything(arguments.data.absolute(), arguments.processes)
    else:
        folder, shard = arguments.data.absolute(), (index, of)
        if arguments.what == "tune":
            epsilon = None if arguments.epsilon == "none" else float(arguments.epsilon)
            tune(folder, shard, arguments.set, epsilon)
        else:
            run(folder, shard, arguments.set)


if __name__ == "__main__":
    main()
