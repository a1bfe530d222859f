"""Whole simulations beside Flower's stock one.

    python -m benchmarks.peer_simulations [--texts FILE.jsonl] [--sites 10] [--rounds 5] [--turns 1]

Each side runs in processes of its own, in turns: the same texts, sites and rounds, one batch a site
and round, adapters of rank 8 and a head, no privacy. Ours draws each record by itself, so its
batches have the stock client's size on average. The figures are the CPU time and the memory of all
processes of a side; the wall time is beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.peer_steps import LONGEST, RANK, RATE
from benchmarks.process_tree import Used, used_by
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord

STOCK, LOCAL, RAY = "Flower's stock simulation", "Cloister, local", "Cloister, --engine ray"
BATCH = 64
# Records that our side scores, once.
TEST_RECORDS = 50
# Goals of README.md: the peer's time over ours.
GOALS: Mapping[str, tuple[str, float]] = {LOCAL: ("local", 4.0), RAY: ("--engine ray", 2.0)}
MEMORY_GOAL = 5.0


@dataclass(frozen=True)
class Work:
    """What each side has to do.

    Args:
        texts: A file of records with text and label, or a built-in set's name.
        sites: Number of sites.
        rounds: Number of rounds.
        batch: Records of a site's batch, at most; a site with fewer takes all it has.
    """

    texts: str
    sites: int
    rounds: int
    batch: int = BATCH


def command_of(side: str, work: Work, records: list[TextRecord], folder: Path) -> list[str]:
    """The command of one side.

    Args:
        side: `STOCK`, `LOCAL` or `RAY`.
        work: What it has to do.
        records: The records of `work.texts`.
        folder: Gets our run, and its test set.
    """
    if side == STOCK:
        numbers = (str(work.sites), str(work.rounds), str(work.batch))
        return [sys.executable, "-m", "benchmarks.flower_stock", work.texts, *numbers]
    # What a site has and declares: the rate times it is the batch's expected size.
    share = len(records) // work.sites
    settings = {
        "data.train": work.texts,
        "data.test": test_set(records, folder / "test.jsonl"),
        "task.labels": json.dumps(sorted({record.label for record in records})),
        "data.sites": work.sites,
        "data.partition": "iid",
        "data.public_records": share,
        "task.max_length": LONGEST,
        "lora.r": RANK,
        "lora.train": "both",
        "lora.top_layers": 0,
        "lora.target_modules": '["query", "value"]',
        "training.mode": "local-steps",
        "training.local_steps": 1,
        "training.expected_batch_size": min(work.batch, share),
        "training.learning_rate": RATE,
        "privacy.enabled": "false",
        "federation.num_rounds": work.rounds,
        "federation.evaluate_every": work.rounds,
        "tracking.tensorboard": "false",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    engine = ["--engine", "ray"] if side == RAY else []
    words = [
        sys.executable,
        "-m",
        "cloister",
        "simulate",
        "--no-twin",
        "--out",
        str(folder / "run"),
    ]
    return [*words, *engine, *given]


def measured(
    work: Work, turns: int, run: Callable[[list[str]], Used] = used_by
) -> tuple[dict[str, list[Used]], dict[str, str]]:
    """Measures all sides in turns.

    Returns:
        What each side used, by turn; and by name why a side was not measured.
    """
    absent = {}
    if importlib.util.find_spec("ray") is None:
        absent = dict.fromkeys((STOCK, RAY), "Ray is not installed (the extra `ray`)")
    records = [
        record
        for record in load(work.texts, "train", "text", DataConfig(test=None))
        if isinstance(record, TextRecord)
    ]
    found: dict[str, list[Used]] = {s: [] for s in (STOCK, LOCAL, RAY) if s not in absent}
    for _ in range(turns):
        for side, taken in found.items():
            with tempfile.TemporaryDirectory() as folder:
                taken.append(run(command_of(side, work, records, Path(folder))))
    return found, absent


def test_set(records: list[TextRecord], path: Path) -> Path:
    """Writes the first records as the test set that a study must have.

    The stock simulation scores nothing, so ours shall score little.
    """
    rows = [{"text": one.text, "label": one.label} for one in records[:TEST_RECORDS]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def figures(sites: int, found: Mapping[str, list[Used]]) -> Iterator[Figure]:
    """Yields Flower's stock simulation over ours: CPU, wall and memory.

    Args:
        sites: Number of sites.
        found: What each side used, by turn.
    """
    for side, (engine, goal) in GOALS.items():
        if side not in found or STOCK not in found:
            continue
        pairs = list(zip(found[STOCK], found[side], strict=True))
        name = f"{STOCK} ÷ ours ({engine}), {sites} sites"
        cpu = statistics.median(one.cpu / two.cpu for one, two in pairs)
        wall = statistics.median(one.wall / two.wall for one, two in pairs)
        yield Figure(f"{name}: CPU", cpu, goal, "at least")
        yield Figure(f"{name}: wall", wall, goal, "at least")
        if side == LOCAL:
            memory = statistics.median(one.peak / two.peak for one, two in pairs)
            yield Figure(f"{name}: memory", memory, MEMORY_GOAL, "at least")


def main() -> None:
    """Measures, and prints each side's CPU, wall time and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH, help="records of a site's batch")
    parser.add_argument("--turns", type=int, default=1, help="how often each side runs")
    asked = parser.parse_args()
    work = Work(asked.texts, asked.sites, asked.rounds, asked.batch)
    found, absent = measured(work, asked.turns)
    print(f"load {os.getloadavg()}")
    for side, turns in found.items():
        for used in turns:
            print(f"{side:<26} {used.cpu:8.1f} CPU s {used.wall:8.1f} s {used.peak / 1e9:6.2f} GB")
    for side, why in absent.items():
        print(f"{side:<26} not run: {why}")
    for figure in figures(asked.sites, found):
        print(figure)


if __name__ == "__main__":
    main()
