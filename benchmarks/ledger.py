"""What a ledger and secure noise cost beside training."""

import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.figure import Figure
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.ledger.budget import ORDERS, Budget
from cloister.ledger.chain import Entry, Head, sign
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger, Reservation
from cloister.ledger.signing import create_key, public_hex
from cloister.ledger.verify import verify
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import open_workspace

ROUNDS, ENTRIES = 30, 10_000
PAYLOAD = bytes(50_000)  # about an adapter of the quickstart's
RECORDS, TOKENS = 64, 2048


def figures(texts: str) -> Iterator[Figure]:
    yield Figure("ms to reserve and release one round, median", _round() * 1e3, 100, "at most")
    yield Figure(f"s to verify {ENTRIES} entries", _verification(), 10, "at most")
    share, parameters = _noise(texts)
    yield Figure(f"noise over a private step at {parameters:,} parameters", share, 0.1, "at most")


def _plan(rounds: int) -> Plan:
    return Plan(
        public_records=1200,
        expected_batch_size=300,
        local_steps=1,
        num_rounds=rounds,
        noise_multiplier=1.1,
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-5,
    )


def _round() -> float:
    plan, times = _plan(ROUNDS), []
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(epsilon=20.0, delta=2e-5)
        ledger = Ledger.create(Path(folder) / "bench.ledger", budget, Unit.RECORD)
        for number in range(1, ROUNDS + 1):
            started = time.perf_counter()
            granted = ledger.reserve(Charge(study="s", round=number, plan=plan, request="r"))
            assert isinstance(granted, Reservation)
            granted.release(PAYLOAD)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def _verification() -> float:
    entries = _chain((ENTRIES - 1) // 2)
    started = time.perf_counter()
    verify(entries, "bench")
    return time.perf_counter() - started


def _chain(rounds: int) -> list[Entry]:
    """A sound ledger's entries, made without its file."""
    with tempfile.TemporaryDirectory() as folder:
        key = create_key(Path(folder) / "key")
    plan = _plan(rounds)
    one, whole = plan.event(1), plan.event(rounds)
    order = ORDERS[6]
    about = {"code": "bench", "time": "bench"}
    first = {
        "kind": "begin",
        "epsilon": None,
        "delta": 2e-5,
        "unit": "record",
        "key": public_hex(key),
        "neighbouring": "add-remove",
        **about,
    }
    entries = [sign(first, None, key)]

    def add(fields: dict[str, object]) -> None:
        entries.append(sign({**fields, **about}, Head(len(entries) - 1, entries[-1].hash), key))

    stated = {"pld": epsilon([whole], 1e-5, COARSE), "rdp": rdp_epsilon([whole], 1e-5)}
    for number in range(1, rounds + 1):
        add(
            {
                "kind": "reserve",
                "study": "s",
                "round": number,
                "plan": plan.digest(),
                "request": "r",
                "event": asdict(one),
                "planned_steps": rounds,
                "order": order,
                "epsilon": stated,
                "delta": 1e-5,
                **({"terms": asdict(plan)} if number == 1 else {}),
            }
        )
        digest = hashlib.sha256(PAYLOAD).hexdigest()
        add({"kind": "release", "reservation": len(entries) - 1, "sha256": digest, "bytes": 1})
    return entries


def _noise(texts: str) -> tuple[float, int]:
    records = load(texts, "train", "text", DataConfig(test=None))
    lora = LoraConfig(
        r=24,
        train="both",
        top_layers=0,
        target_modules=("query", "key", "value", "intermediate.dense", "output.dense"),
    )
    workspace = open_workspace(ModelConfig(), lora, TaskConfig(), labels_of(records, "text"), 0)
    units = singles(workspace.encode(records[:RECORDS]))
    shapes = candidates(workspace.task.max_length, TOKENS)
    with per_record_hooks(workspace.network):
        started = time.perf_counter()
        total = clipped_gradient_sum(workspace.network, workspace.task, units, 1.0, shapes)
        step = time.perf_counter() - started
    shares: Sequence[float] = [_seconds_of_noise(total) / step for _ in range(3)]
    parameters = sum(p.numel() for _, p in trained_parameters(workspace.network))
    return statistics.median(shares), parameters


def _seconds_of_noise(total: ClippedSum) -> float:
    started = time.perf_counter()
    add_noise(total, 1.0, OsEntropy())
    return time.perf_counter() - started
