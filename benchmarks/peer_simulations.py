"""Whole simulations beside Flower's stock one, and the bytes of an exchange beside FlowerTune's.

    python -m benchmarks.peer_simulations [--texts FILE.jsonl] [--sites 10] [--rounds 5] [--turns 1]

Each side runs in processes of its own, in turns: the same texts, sites and rounds, one batch a site
and round, adapters of rank 8 and a head, no privacy. The figures are the CPU time and the memory of
all processes of a side; the wall time is beside it.
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

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from benchmarks.figure import Figure
from benchmarks.peer_steps import LONGEST, RANK, RATE
from benchmarks.process_tree import Used, used_by
from cloister.adapter.formats import Dtype
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status

STOCK, LOCAL, RAY = "Flower's stock simulation", "Cloister, local", "Cloister, --engine ray"
BATCH = 64
# Records that our side scores, once.
TEST_RECORDS = 50
# Goals of README.md: the peer's time over ours.
GOALS: Mapping[str, tuple[str, float]] = {LOCAL: ("local", 4.0), RAY: ("--engine ray", 2.0)}
MEMORY_GOAL = 5.0
# Shapes of an exchange: rank 8 on queries and values of MiniLM's six layers, and a head of 77.
LAYERS, WIDTH, LABELS = 6, 384, 77


def command_of(
    side: str, texts: str, sites: int, rounds: int, out: Path, test: Path | None = None
) -> list[str]:
    """The command of one side.

    Args:
        side: `STOCK`, `LOCAL` or `RAY`.
        texts: Records with text and label.
        sites: Number of sites.
        rounds: Number of rounds.
        out: A folder that does not exist yet, for our run.
        test: Records that our run scores once at its end; None: the texts have a test split.
    """
    if side == STOCK:
        numbers = (str(sites), str(rounds), str(BATCH))
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
        "training.expected_batch_size": BATCH,
        "training.learning_rate": RATE,
        "privacy.enabled": "false",
        "federation.num_rounds": rounds,
        "federation.evaluate_every": rounds,
        "tracking.tensorboard": "false",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    engine = ["--engine", "ray"] if side == RAY else []
    words = [sys.executable, "-m", "cloister", "simulate", "--no-twin", "--out", str(out)]
    return [*words, *engine, *given]


def measured(
    texts: str, sites: int, rounds: int, turns: int, run: Callable[[list[str]], Used] = used_by
) -> tuple[dict[str, list[Used]], dict[str, str]]:
    """Measures all sides in turns.

    Returns:
        What each side used, by turn; and by name why a side was not measured.
    """
    absent = {}
    if importlib.util.find_spec("ray") is None:
        absent = dict.fromkeys((STOCK, RAY), "Ray is not installed (the extra `ray`)")
    found: dict[str, list[Used]] = {s: [] for s in (STOCK, LOCAL, RAY) if s not in absent}
    for _ in range(turns):
        for side, taken in found.items():
            with tempfile.TemporaryDirectory() as folder:
                out, test = Path(folder) / "run", few_of(texts, Path(folder) / "test.jsonl")
                taken.append(run(command_of(side, texts, sites, rounds, out, test)))
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


def exchange() -> dict[str, int]:
    """Bytes of one round's messages for one adapter, by name.

    FlowerTune sends the adapter's arrays in float32 in both directions. Ours are a question with
    the adapter, and answers with an update in float32 and in int8. All objects of a Flower message
    count, without HTTP.
    """
    rng = np.random.default_rng(0)
    adapter = Adapter(
        {
            name: rng.normal(scale=1e-2, size=shape).astype(np.float32)
            for name, shape in _shapes().items()
        }
    )
    theirs = ArrayRecord({name: torch.from_numpy(adapter[name].copy()) for name in adapter})
    both = _message_bytes(RecordDict({"arrays": theirs}))
    signature = bytes(64)
    question = RoundRequest("0" * 64, 1, encode(adapter), to="site", signature=signature)

    def answer(dtype: Dtype) -> int:
        reply = RoundReply(
            "site", 1, Status.TRAINED, encode(adapter, dtype), 8.0, "0" * 64, signature
        )
        return _message_bytes(RecordDict({RECORD: ConfigRecord(reply.fields())}))

    return {
        "FlowerTune-style, down": both,
        "FlowerTune-style, up": both,
        "Cloister, down": _message_bytes(RecordDict({RECORD: ConfigRecord(question.fields())})),
        "Cloister, up, float32": answer("float32"),
        "Cloister, up, int8": answer("int8"),
    }


def exchange_figures(sizes: Mapping[str, int]) -> Iterator[Figure]:
    """Yields a FlowerTune-style exchange's bytes over ours, up and down."""
    up = sizes["FlowerTune-style, up"] / sizes["Cloister, up, int8"]
    yield Figure("FlowerTune-style ÷ ours (int8), bytes up", up, 3.9, "at least")
    down = sizes["FlowerTune-style, down"] / sizes["Cloister, down"]
    yield Figure("FlowerTune-style ÷ ours, bytes down", down, 3.9, "at least")


def _shapes() -> Mapping[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"head.weight": (LABELS, WIDTH), "head.bias": (LABELS,)}
    for layer in range(LAYERS):
        for module in ("query", "value"):
            name = f"layer.{layer}.{module}"
            found |= {f"{name}.lora_A": (RANK, WIDTH), f"{name}.lora_B": (WIDTH, RANK)}
    return found


def _message_bytes(content: RecordDict) -> int:
    return sum(len(one.deflate()) for one in get_all_nested_objects(content).values())


def main() -> None:
    """Measures, and prints each side's CPU, wall time and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=1, help="how often each side runs")
    asked = parser.parse_args()
    sizes = exchange()
    for name, count in sizes.items():
        print(f"{name:<26} {count:>9,} bytes")
    found, absent = measured(asked.texts, asked.sites, asked.rounds, asked.turns)
    print(f"load {os.getloadavg()}")
    for side, turns in found.items():
        for used in turns:
            print(f"{side:<26} {used.cpu:8.1f} CPU s {used.wall:8.1f} s {used.peak / 1e9:6.2f} GB")
    for side, why in absent.items():
        print(f"{side:<26} not run: {why}")
    for figure in (*exchange_figures(sizes), *figures(asked.sites, found)):
        print(figure)


if __name__ == "__main__":
    main()
