"""Whole simulations beside Flower's stock one.

    python -m benchmarks.peer_simulations [--texts FILE.jsonl] [--sites 10] [--rounds 5] [--turns 1]
        [--batch 64]

Each side runs in processes of its own, in turns: the same texts, sites and rounds, one batch a site
and round, adapters of rank 8 and a head, no privacy. Ours runs as it is (which divides the sites
among worker processes where that pays), in one process, and on Ray. The figures are the CPU time
and the memory of all processes of a side; the wall time is beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.peer_steps import LONGEST, RANK, RATE
from benchmarks.process_tree import Used, used_by

STOCK, LOCAL, RAY = "Flower's stock simulation", "Cloister, local", "Cloister, --engine ray"
ALONE = "Cloister, one process"
# What the command of ours has more, by side.
ENGINES: Mapping[str, tuple[str, ...]] = {
    LOCAL: (),
    ALONE: ("--workers", "1"),
    RAY: ("--engine", "ray"),
}
BATCH = 64
# Records that our side scores, once.
TEST_RECORDS = 50
# Goals of README.md: the peer's time over ours.
GOALS: Mapping[str, tuple[str, float]] = {
    LOCAL: ("local", 4.0),
    ALONE: ("one process", 4.0),
    RAY: ("--engine ray", 2.0),
}
MEMORY_GOAL = 5.0


def command_of(
    side: str,
    texts: str,
    sites: int,
    rounds: int,
    out: Path,
    test: Path | None = None,
    batch: int = BATCH,
) -> list[str]:
    """The command of one side.

    Args:
        side: `STOCK`, or one of `ENGINES`.
        texts: Records with text and label.
        sites: Number of sites.
        rounds: Number of rounds.
        out: A folder that does not exist yet, for our run.
        test: Records that our run scores once at its end; None: the texts have a test split.
        batch: Records of a site's batch.
    """
    if side == STOCK:
        numbers = (str(sites), str(rounds), str(batch))
        return [sys.executable, "-m", "benchmarks.flower_stock", texts, *numbers]
    settings = {
        "data.train": texts,
        **({} if test is None else {"data.test": test}),
        "data.sites": sites,
        "data.partition": "iid",
        "task.max_length": LONGEST,
        "lora.r": RANK,
        "lora.train": "both",
        "lora.top_layers": 0,
        "lora.target_modules": '["query", "value"]',
        "training.mode": "local-steps",
        "training.local_steps": 1,
        "training.expected_batch_size": batch,
        "training.learning_rate": RATE,
        "privacy.enabled": "false",
        "federation.num_rounds": rounds,
        "federation.evaluate_every": rounds,
        "tracking.tensorboard": "false",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = [sys.executable, "-m", "cloister", "simulate", "--no-twin", "--out", str(out)]
    return [*words, *ENGINES[side], *given]


def measured(
    texts: str,
    sites: int,
    rounds: int,
    turns: int,
    run: Callable[[list[str]], Used] = used_by,
    batch: int = BATCH,
) -> tuple[dict[str, list[Used]], dict[str, str]]:
    """Measures all sides in turns; the arguments are those of `command_of`.

    Returns:
        What each side used, by turn; and by name why a side was not measured.
    """
    absent = {}
    if importlib.util.find_spec("ray") is None:
        absent = dict.fromkeys((STOCK, RAY), "Ray is not installed (the extra `ray`)")
    found: dict[str, list[Used]] = {s: [] for s in (STOCK, *ENGINES) if s not in absent}
    for _ in range(turns):
        for side, taken in found.items():
            with tempfile.TemporaryDirectory() as folder:
                out, test = Path(folder) / "run", few_of(texts, Path(folder) / "test.jsonl")
                taken.append(run(command_of(side, texts, sites, rounds, out, test, batch)))
    return found, absent


def few_of(texts: str, path: Path) -> Path | None:
    """Writes a file's first records, as a study must have a test set; None for built-in texts.

    The stock simulation scores nothing, so ours shall score little.
    """
    if not Path(texts).is_file():
        return None
    with Path(texts).open(encoding="utf-8") as file:
        path.write_text("".join(itertools.islice(file, TEST_RECORDS)), encoding="utf-8")
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
    parser.add_argument("--turns", type=int, default=1, help="how often each side runs")
    parser.add_argument("--batch", type=int, default=BATCH, help="records of a site's batch")
    asked = parser.parse_args()
    found, absent = measured(asked.texts, asked.sites, asked.rounds, asked.turns, batch=asked.batch)
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
