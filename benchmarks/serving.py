"""A service that batches what waits, against a naive one, and itself answering one by one.

    python -m benchmarks.serving [--clients 32] [--requests 60] [--texts FILE.jsonl]

Four services of one MiniLM classifier take turns: a naive one (`benchmarks.naive_predict`), and
`cloister serve` one request at a time, in batches, and in batches that compute in bfloat16. 32
callers of another process each send their next text as soon as the last is answered. The figures
are CPU time of the service a request, the naive one's ÷ each other's, which other processes on the
machine change least; requests a second and the slowest of a hundred stand beside it. Nothing may be
lost. What bfloat16 changes of the answers stands below.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import httpx
import numpy as np
import psutil

from benchmarks.figure import Figure
from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import TextRecord
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.models.config import LoraConfig, ModelConfig
from cloister.serving.model import load as load_model
from cloister.serving.predictions import Classified
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import open_workspace

# Texts of which answers in both types are compared.
COMPARED = 256
BASE = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Load:
    """One turn of one service.

    Attributes:
        cpu: CPU seconds of the service a request.
        rate: Requests a second of wall time.
        p50: Seconds until half of the requests were answered.
        p99: Seconds until 99 of 100 were.
        lost: Requests without an answer of status 200.
    """

    cpu: float
    rate: float
    p50: float
    p99: float
    lost: int


def figures(
    turns: int, texts: str = "synthetic:hospitals", clients: int = 32, requests: int = 60
) -> Iterator[Figure]:
    """The ratio, and what was lost."""
    served = ("cloister", "serve")
    services: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "naive": (("benchmarks.naive_predict",), ()),
        "one by one": (served, ("--port", "0", "--batch-tokens", "1")),
        "batched": (served, ("--port", "0")),
        "batched in bfloat16": (served, ("--port", "0", "--dtype", "bfloat16")),
    }
    found: dict[str, list[Load]] = {name: [] for name in services}
    asked = [
        r.text for r in load(texts, "train", "text", DataConfig()) if isinstance(r, TextRecord)
    ]
    with tempfile.TemporaryDirectory() as folder:
        _classifier(Path(folder))
        for _ in range(turns):
            for name, (program, options) in services.items():
                with _service([*program, folder, *options]) as (process, address):
                    found[name].append(_load(process, address, asked, clients, requests))
        same, apart = _agreement(Path(folder), asked[:COMPARED])
    for name, loads in found.items():
        print(
            f"{name}: {median(one.rate for one in loads):.0f} requests a second, "
            f"half within {1000 * median(one.p50 for one in loads):.0f} ms, 99 of 100 within "
            f"{1000 * median(one.p99 for one in loads):.0f} ms, CPU a request "
            f"{1000 * median(one.cpu for one in loads):.1f} ms"
        )
    for name in ("batched", "batched in bfloat16"):
        for other in ("naive", "one by one"):
            pairs = list(zip(found[other], found[name], strict=True))
            told = f"CPU a request, {other} ÷ {name}, {clients} clients"
            yield Figure(told, median(a.cpu / b.cpu for a, b in pairs), 4, "at least")
            told = f"requests a second, {name} ÷ {other}, {clients} clients"
            yield Figure(told, median(b.rate / a.rate for a, b in pairs), 4, "at least")
    yield Figure(
        f"share of {COMPARED} labels that bfloat16 leaves as they are", same, 0.99, "at least"
    )
    yield Figure("largest change of a probability by bfloat16", apart, 0.02, "at most")
    lost = sum(one.lost for loads in found.values() for one in loads)
    yield Figure("requests lost", float(lost), 0, "at most")


def _agreement(folder: Path, texts: Sequence[str]) -> tuple[float, float]:
    """The share of labels that are the same in both types, and how far probabilities differ."""
    exact, rounded = (load_model(folder, "cpu", dtype=dtype) for dtype in (None, "bfloat16"))
    pairs = list(zip(exact.predict(texts), rounded.predict(texts), strict=True))
    told = [(a, b) for a, b in pairs if isinstance(a, Classified) and isinstance(b, Classified)]
    apart = (
        abs(share - b.probabilities[label])
        for a, b in told
        for label, share in a.probabilities.items()
    )
    return sum(a.label == b.label for a, b in told) / len(told), max(apart)


def _classifier(folder: Path) -> None:
    """A classifier whose values are drawn, which computes as much as a trained one."""
    labels = tuple(f"label {number}" for number in range(10))
    model, lora = ModelConfig(base=BASE), LoraConfig(top_layers=0)
    task = TaskConfig(labels=labels, max_length=128)
    workspace = open_workspace(model, lora, task, labels, 0)
    about = ReleaseFacts(
        ModelConfig(base=BASE, sha256=workspace.base_sha256), lora, task, DataConfig(), 0
    )
    rng = np.random.default_rng(0)
    # A head that is spread, so that labels differ; adapters near zero, as after few rounds.
    values = {
        name: (3.0 if name.startswith("head.") else 0.02) * rng.normal(size=array.shape)
        for name, array in workspace.start.items()
    }
    export(folder, workspace, Adapter(values), about)


@contextmanager
def _service(words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = next(line for line in process.stderr if line.startswith("http"))
        yield process, address.split("/ (")[0]
        process.send_signal(signal.SIGTERM)
        process.wait()
    finally:
        process.kill()


def _load(
    process: subprocess.Popen[str], address: str, texts: Sequence[str], clients: int, requests: int
) -> Load:
    counter = psutil.Process(process.pid)
    asyncio.run(_ask(address, texts, clients, 2))  # what is loaded at first use
    before, began = counter.cpu_times(), time.monotonic()
    seconds = asyncio.run(_ask(address, texts, clients, requests))
    wall, after = time.monotonic() - began, counter.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    cuts = quantiles(seconds, n=100)
    total = clients * requests
    return Load(cpu / total, len(seconds) / wall, cuts[49], cuts[98], total - len(seconds))


async def _ask(address: str, texts: Sequence[str], clients: int, requests: int) -> list[float]:
    """Seconds of each request that was answered."""
    found: list[float] = []

    async def call(first: int) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=120, trust_env=False) as client:
            for number in range(requests):
                text = texts[(first * requests + number) % len(texts)]
                began = time.monotonic()
                answer = await client.post("/v1/predict", json={"inputs": [text]})
                if answer.status_code == 200:
                    found.append(time.monotonic() - began)

    await asyncio.gather(*(call(number) for number in range(clients)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default="synthetic:hospitals", help="records with text, label")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=60)
    arguments = parser.parse_args()
    for figure in figures(arguments.turns, arguments.texts, arguments.clients, arguments.requests):
        print(figure, flush=True)
