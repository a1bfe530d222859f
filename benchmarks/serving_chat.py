"""A chat service that decodes what waits together, against a naive one with transformers' generate.

    python -m benchmarks.serving_chat [--clients 32] [--tokens 24] [--turns 1]

The naive service is `benchmarks.naive_chat`. Callers ask at once, each one question; both services
get the same questions and limits. The figure is CPU time of the service a reply, which other
processes on the machine change least. Replies must be the same, and nothing may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.figure import Figure
from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.export.adapter_folder import ReleaseFacts, export
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.packaged import SMOLLM2
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import open_workspace

THINGS = ("a parcel", "a lost card", "a late train", "a bicycle", "a bill", "a password")
PLACES = ("in the app", "at the counter", "by telephone", "from abroad", "on a Sunday")
# A queue and patience for all callers at once, on a machine that does other things too.
OPTIONS = ("--port", "0", "--queue", "64", "--timeout", "1200")
# Seconds for a reply behind 31 others on a machine that does other things too.
PATIENCE = 1200.0


@dataclass(frozen=True)
class ChatLoad:
    """One turn of one service.

    Attributes:
        cpu: CPU seconds of the service a reply.
        wall: Seconds until all replies were there.
        slowest: Seconds until the last caller's reply.
        replies: By question; None: lost.
    """

    cpu: float
    wall: float
    slowest: float
    replies: tuple[str | None, ...]


def figures(turns: int, clients: int, tokens: int) -> Iterator[Figure]:
    """The ratio of CPU time, and what was lost or differs."""
    asked = [
        f"What do I do about {THINGS[n % len(THINGS)]} {PLACES[n % len(PLACES)]}?"
        for n in range(clients)
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "chat"
        _chat(folder)
        services = {
            "naive": ["benchmarks.naive_chat", str(folder)],
            "served": ["cloister", "serve", str(folder), *OPTIONS],
        }
        found: dict[str, list[ChatLoad]] = {name: [] for name in services}
        for _ in range(turns):
            for name, words in services.items():
                with _service(words) as (process, address):
                    found[name].append(_load(process, address, asked, tokens))
    for name, loads in found.items():
        print(
            f"{name}: CPU a reply {median(one.cpu for one in loads):.2f} s, all {clients} replies "
            f"in {median(one.wall for one in loads):.1f} s"
        )
    pairs = list(zip(found["naive"], found["served"], strict=True))
    told = f"CPU a reply, naive ÷ cloister serve, {clients} clients"
    yield Figure(told, median(a.cpu / b.cpu for a, b in pairs), 4, "at least")
    told = f"replies a second, cloister serve ÷ naive, {clients} clients"
    yield Figure(told, median(a.wall / b.wall for a, b in pairs), 4, "at least")
    told = f"slowest reply, cloister serve ÷ naive, {clients} clients"
    yield Figure(told, median(b.slowest / a.slowest for a, b in pairs), 1, "at most")
    same = sum(x == y for a, b in pairs for x, y in zip(a.replies, b.replies, strict=True))
    told = "share of replies that are the naive one's"
    yield Figure(told, same / clients / turns, 0.9, "at least")
    lost = sum(reply is None for loads in found.values() for a in loads for reply in a.replies)
    yield Figure("replies lost", float(lost), 0, "at most")


def _chat(folder: Path) -> None:
    """SmolLM2 with an adapter as it begins, which computes as much as a trained one."""
    lora = LoraConfig(target_modules=("q_proj", "v_proj"), top_layers=0)
    task = TaskConfig(kind="causal-lm", max_length=512)
    workspace = open_workspace(ModelConfig(base=SMOLLM2), lora, task, (), 0)
    about = ModelConfig(base=SMOLLM2, sha256=workspace.base_sha256)
    facts = ReleaseFacts(about, lora, task, DataConfig(), 0)
    export(folder, workspace, Adapter(workspace.start), facts)


@contextmanager
def _service(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = next(line for line in process.stderr if line.startswith("http"))
        yield process, address.split(" (")[0].rstrip("/")
    finally:
        process.kill()
        process.wait()


def _load(process: subprocess.Popen[str], address: str, asked: list[str], tokens: int) -> ChatLoad:
    counter = psutil.Process(process.pid)
    asyncio.run(_ask(address, asked[:1], 2))  # what is loaded at first use
    before, began = counter.cpu_times(), time.monotonic()
    found = asyncio.run(_ask(address, asked, tokens))
    wall, after = time.monotonic() - began, counter.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    slowest = max(seconds for seconds, _ in found)
    return ChatLoad(cpu / len(asked), wall, slowest, tuple(reply for _, reply in found))


async def _ask(address: str, asked: list[str], tokens: int) -> list[tuple[float, str | None]]:
    """Seconds and text of each question's reply, all asked at once."""

    async def call(question: str) -> tuple[float, str | None]:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens}
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, trust_env=False) as client:
            answer = await client.post("/v1/chat/completions", json=body)
        is_there = answer.status_code == 200
        text = answer.json()["choices"][0]["message"]["content"].strip() if is_there else None
        return time.monotonic() - began, text

    return list(await asyncio.gather(*map(call, asked)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24)
    arguments = parser.parse_args()
    for figure in figures(arguments.turns, arguments.clients, arguments.tokens):
        print(figure, flush=True)
