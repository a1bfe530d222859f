"""What a run does once and not at every round, as ratios of CPU time.

Each ratio is the time of doing it again over the time of what Cloister does in its place: the same
work with the same result. The variants take turns; the median of the turns' ratios counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.figure import Figure
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.records import Record
from cloister.ledger.budget import Budget
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.reservation import Reservation
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.kept_proofs import ProofFolder
from cloister.training.packed import PackedUnits
from cloister.training.proof import Proof, prove
from cloister.training.proof_key import shapes_to_try
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace

# Records of a site's step in the quickstart; rounds of a ledger (studies in simulations/ have 30 to
# 120); tokens of a pass.
RECORDS, ROUNDS, TOKENS = 300, 60, 2048
PLAN = Plan(
    public_records=1200,
    expected_batch_size=300,
    local_steps=1,
    num_rounds=ROUNDS,
    noise_multiplier=1.1,
    max_grad_norm=1.0,
    max_update_norm=1.0,
    delta=1e-5,
)


def figures(texts: str, turns: int) -> Iterator[Figure]:
    """Yields the ratios.

    Args:
        texts: Records with text and label.
        turns: How often each variant runs.
    """
    records = load(texts, "train", "text", DataConfig(test=None))[:RECORDS]
    # All adapters of the last layer, of which the first rounds of `probe_rounds` train none.
    lora = LoraConfig(train="b", top_layers=1)
    labels = labels_of(records, "text")
    opened = open_workspace(ModelConfig(), lora, TaskConfig(), labels, 0, frozen_cache_gib=1.0)
    name = "a head's step: last layer again ÷ the head's inputs cached"
    yield Figure(name, _head_step(opened, opened.encode(records), turns), 5, "at least")
    yield Figure(
        "a test set: encoded again ÷ kept", _encoded(opened, records, turns), 5, "at least"
    )
    name = "a study's proof on this machine: made ÷ found kept"
    yield Figure(name, _proof(opened, turns), 20, "at least")
    name = f"a ledger of {ROUNDS} rounds: opened again ÷ refreshed"
    yield Figure(name, _ledger(turns), 10, "at least")


def cpu_ratio(slow: Callable[[], object], fast: Callable[[], object], turns: int) -> float:
    """Median over turns of slow's CPU time over fast's; both run once before."""
    slow(), fast()
    return statistics.median(_cpu(slow) / _cpu(fast) for _ in range(turns))


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _head_step(opened: Workspace, examples: Sequence[Example], turns: int) -> float:
    """A step of the head alone; both variants have the frozen layers' states cached."""
    network, kept = opened.network, opened.network.head_inputs
    opened.train_names(frozenset(name for name in opened.start if name.startswith("head.")))
    shapes = candidates(opened.task.max_length, TOKENS)
    sums: dict[bool, ClippedSum] = {}

    def step(cached: bool) -> None:
        network.head_inputs = kept if cached else None
        with per_record_hooks(network):
            sums[cached] = clipped_gradient_sum(
                network, opened.task, singles(examples), 1.0, shapes
            )

    ratio = cpu_ratio(lambda: step(False), lambda: step(True), turns)
    pairs = zip(sums[False].tensors, sums[True].tensors, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs), "the cache changed a bit"
    return ratio


def _encoded(opened: Workspace, records: Sequence[Record], turns: int) -> float:
    kept = PackedUnits(singles(opened.encode(records)))
    return cpu_ratio(lambda: opened.encode(records), lambda: [one for (one,) in kept], turns)


def _proof(opened: Workspace, turns: int) -> float:
    """The proof is made in one turn alone, as it takes the longest of all."""
    config, made = TrainingConfig(), []
    opened.train_names(frozenset(opened.start))
    taken = _cpu(lambda: made.append(prove(opened, PLAN, config)))
    with tempfile.TemporaryDirectory() as folder:
        kept = ProofFolder(Path(folder) / "proofs")
        kept.write(made[0])

        def found() -> None:
            key = Proof.key_of(opened, PLAN, config)
            assert kept.read(key, shapes_to_try(opened, config)) == made[0]

        return taken / statistics.median(_cpu(found) for _ in range(turns))


def _ledger(turns: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.ledger"
        ledger = Ledger.create(path, Budget(epsilon=50.0, delta=2e-5), Unit.RECORD)
        for number in range(1, ROUNDS + 1):
            granted = ledger.reserve(Charge(study="s", round=number, plan=PLAN, request="r"))
            assert isinstance(granted, Reservation)
            granted.release(b"update")
        return cpu_ratio(lambda: Ledger(path), ledger.refresh, turns)
