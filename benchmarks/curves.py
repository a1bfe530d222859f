"""What a step, a ledger and a coordinator's sum cost by length, parameters, rounds and sites.

    python -m benchmarks.curves --json FILE [--turns 5]

Measured in turns, in CPU time of one thread; each point is a median over the turns. The file is
what `benchmarks.cost_model` is fitted to and what `benchmarks.plots` draws; that of the last full
run is kept as `benchmarks/recorded/curves.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.peft_steps import ATTENTION, LINEAR, private_step
from benchmarks.turns import Taken, in_turns
from cloister.adapter.tensors import Adapter
from cloister.ledger.budget import Budget
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.strategies.exact_sum import RunningMean
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import BatchShape
from cloister.training.passes import Pass, Row
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.workspace import open_workspace

Curve = Literal["step by tokens", "step by parameters", "round by ledger rounds", "sum by sites"]
# Tokens of each of 16 records; ranks on all linear modules, with 32 records of 32 tokens.
LENGTHS, LENGTH_ROWS = (8, 16, 32, 64, 128, 256), 16
RANKS, RANK_ROWS, RANK_TOKENS = (1, 8, 32, 128), 32, 32
# Rounds that a ledger has when its next one is charged; sites whose updates are summed.
LEDGERS, SITES = (50, 200, 800), (10, 30, 100)
# Values of an update that is summed: 4 MB in float32.
VALUES = 1_000_000


@dataclass(frozen=True)
class Point:
    """One measured point.

    Attributes:
        curve: What was measured.
        x: Tokens of a record, trained parameters, rounds, or sites.
        units: What the time is divided by: records of the step, 1 round, or values of all updates.
        cpu: Median CPU seconds of the whole.
        wall: Median wall seconds of the whole.
        turns: Turns of the medians.
    """

    curve: Curve
    x: int
    units: int
    cpu: float
    wall: float
    turns: int


Variant = tuple[Curve, int, int, Callable[[], object]]


def step(
    targets: tuple[str, ...], rank: int, rows: int, tokens: int
) -> tuple[Callable[[], None], int]:
    """Returns a private step of MiniLM, and its number of trained parameters."""
    lora = LoraConfig(r=rank, target_modules=targets, train="both", top_layers=0)
    task = TaskConfig(max_length=tokens)
    workspace = open_workspace(ModelConfig(), lora, task, ("a", "b"), 0)
    draws = SyntheticBatches(workspace.task, workspace.network.vocabulary)
    records = [draws.example(tokens) for _ in range(rows)]
    group = Pass(
        BatchShape(rows, tokens, (rows,)),
        tuple(Row(place, example) for place, example in enumerate(records)),
    )
    parameters = [parameter for _, parameter in trained_parameters(workspace.network)]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    made = private_step(workspace.network, workspace.task, group, optimizer)
    return made, sum(parameter.numel() for parameter in parameters)


def ledger_round(folder: Path, rounds: int) -> Callable[[], None]:
    """Returns the charge and release of the next round of a ledger that has so many."""
    plan = Plan(
        public_records=1_000_000,
        expected_batch_size=1000,
        local_steps=1,
        num_rounds=10_000,
        noise_multiplier=1.1,
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-6,
    )
    budget = Budget(epsilon=50.0, delta=2e-6)
    ledger = Ledger.create(folder / f"{rounds}.ledger", budget, Unit.RECORD)
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        granted = ledger.reserve(Charge(study="s", round=done, plan=plan, request="r"))
        assert isinstance(granted, Reservation)
        granted.release(b"update")

    for _ in range(rounds):
        one()
    return one


def summed(sites: int) -> Callable[[], None]:
    """Returns the mean of so many sites' updates, each drawn before."""
    rng = np.random.default_rng(0)
    update = Adapter({"x": rng.normal(size=VALUES).astype(np.float32) * np.float32(1e-3)})

    def mean() -> None:
        running = RunningMean({})
        for site in range(sites):
            running.add(str(site), update)
        running.take()

    return mean


def variants(folder: Path) -> list[Variant]:
    """Returns what is measured: the curve, x, the units of its time, and the work."""
    found: list[Variant] = []
    for tokens in LENGTHS:
        work, _ = step(ATTENTION, 8, LENGTH_ROWS, tokens)
        found.append(("step by tokens", tokens, LENGTH_ROWS, work))
    for rank in RANKS:
        work, parameters = step(LINEAR, rank, RANK_ROWS, RANK_TOKENS)
        found.append(("step by parameters", parameters, RANK_ROWS, work))
    found += [("round by ledger rounds", n, 1, ledger_round(folder, n)) for n in LEDGERS]
    found += [("sum by sites", sites, sites * VALUES, summed(sites)) for sites in SITES]
    return found


def points(made: list[Variant], turns: int) -> list[Point]:
    """Measures all variants in turns."""
    torch.set_num_threads(1)
    taken: dict[str, Taken] = in_turns({f"{curve} {x}": work for curve, x, _, work in made}, turns)
    return [
        Point(curve, x, units, taken[f"{curve} {x}"].cpu, taken[f"{curve} {x}"].wall, turns)
        for curve, x, units, _ in made
    ]


def ledger_bytes(folder: Path) -> dict[int, int]:
    """Bytes of each ledger that was made for the curves, by rounds."""
    found = {rounds: folder / f"{rounds}.ledger" for rounds in LEDGERS}
    return {rounds: path.stat().st_size for rounds, path in found.items() if path.exists()}


def main() -> None:
    """Measures, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        found = points(variants(Path(name)), asked.turns)
        sizes = ledger_bytes(Path(name))
    about = {
        "machine": before,
        "load_after": machine()["load"],
        "points": [asdict(point) for point in found],
        "ledger_bytes": sizes,
    }
    asked.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for point in found:
        print(f"{point.curve:<24} {point.x:>10,} {point.cpu:9.4f} CPU s {point.wall:9.4f} s")


if __name__ == "__main__":
    main()
