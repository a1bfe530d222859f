"""Peak memory of private over plain training, each in a process of its own.

`python -m benchmarks.memory private records` prints one process's peak in bytes.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping

import torch

from benchmarks.figure import Figure
from benchmarks.peft_steps import ATTENTION, LINEAR
from benchmarks.random_llama import Size, units_of, workspace_of
from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy.products import Products
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import BatchShape
from cloister.training.gradients import (
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
    record_gradients,
)
from cloister.training.passes import passes
from cloister.training.shapes import BatchShapes, candidates
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.units import singles
from cloister.training.workspace import open_workspace

# By name: adapted modules, rank, records, tokens of each, and what private over plain may be.
WORKS = {
    "records": (ATTENTION, 8, 512, 32, 1.1),
    "parameters": (LINEAR, 128, 64, 16, 2.5),
}
# Checkpointing: a Llama of 16 layers of 512 units in one pass, and what it may be of keeping all.
AGAIN = Size("16 layers of 512 units", 512, 16, 8, 8, 1408, 4096, 4, 256, 8)
AGAIN_MOST = 0.65
# 40.4 million trained parameters: 16 records' gradients, and the most bytes that they may take.
MANY = {
    "short": Size("40 million trained, 16 x 16", 512, 8, 8, 8, 1408, 512, 16, 16, 512),
    "long": Size("40 million trained, 16 x 384", 512, 8, 8, 8, 1408, 512, 16, 384, 512),
}
MANY_MOST = 3e9
# glibc keeps freed blocks below this for later ones; without it a peak shows what was ever in use.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}
NAMES = {"records": "512 records, q,v", "parameters": "5.3 million trained, 64 x 16"}
TOKENS = 1024  # of a pass
NO_VARIABLES: Mapping[str, str] = {}


def figures() -> Iterator[Figure]:
    """A ratio for each work; peaks are of whole processes, libraries and base included."""
    for work, (_, _, _, _, most) in WORKS.items():
        plain, private = (_peak_of(kind, work) for kind in ("plain", "private"))
        print(f"peak memory, {NAMES[work]}: plain {plain >> 20} MiB, private {private >> 20} MiB")
        yield Figure(f"peak memory over plain, {NAMES[work]}", private / plain, most, "at most")
    kept, again = (_peak_of(kind, "llama", EXACT) for kind in ("kept", "again"))
    about = f"{AGAIN.name}, {AGAIN.records} x {AGAIN.tokens}"
    print(f"peak memory, {about}: kept {kept >> 20} MiB, computed again {again >> 20} MiB")
    yield Figure(f"peak memory of checkpointing, {about}", again / kept, AGAIN_MOST, "at most")
    for work, size in MANY.items():
        taken = _peak_of("gradients", work, EXACT)
        print(f"per-record gradients, {size.name}: {taken / 1e9:.2f} GB")
        yield Figure(f"bytes of per-record gradients, {size.name}", taken, MANY_MOST, "at most")


def _peak_of(kind: str, work: str, variables: Mapping[str, str] = NO_VARIABLES) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", kind, work]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **variables}
    )
    return int(done.stdout)


def _train(kind: str, work: str) -> None:
    targets, rank, rows, tokens, _ = WORKS[work]
    torch.set_num_threads(1)
    lora = LoraConfig(r=rank, target_modules=targets, train="both", top_layers=0)
    workspace = open_workspace(ModelConfig(), lora, TaskConfig(max_length=tokens), ("a", "b"), 0)
    network, task = workspace.network, workspace.task
    draws = SyntheticBatches(task, network.vocabulary)
    units = singles([draws.example(tokens - 1) for _ in range(rows)])
    if kind == "plain":
        plain_gradient_sum(network, task, units, TOKENS)
    else:
        with per_record_hooks(network):
            clipped_gradient_sum(network, task, units, 1.0, candidates(tokens, TOKENS))


def _many(work: str) -> int:
    """Bytes of one pass's per-record gradients while they are all there."""
    torch.set_num_threads(1)
    size = MANY[work]
    workspace = workspace_of(size, "cpu", torch.float32)
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    assert sum(p.numel() for p in parameters) > 4e7
    shape = BatchShape(size.records, size.tokens, (size.records,))
    group = next(iter(passes(units_of(workspace, size), BatchShapes(((size.tokens, (16,)),)))))
    assert group.shape == shape
    with per_record_hooks(network):
        found = record_gradients(network, task, group, parameters)
    pieces = [t for g in found for t in ((g.left, g.right) if isinstance(g, Products) else (g,))]
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in pieces)}.values())


def _train_llama(kind: str) -> None:
    torch.set_num_threads(1)
    workspace = workspace_of(AGAIN, "cpu", torch.float32)
    network = workspace.network
    if kind == "again":
        network.checkpoints = CheckpointedLayers(network.backbone, AGAIN.layers)
    shapes = BatchShapes(((AGAIN.tokens, (AGAIN.records,)),))
    with per_record_hooks(network):
        clipped_gradient_sum(network, workspace.task, units_of(workspace, AGAIN), 1.0, shapes)


if __name__ == "__main__":
    if sys.argv[1] == "gradients":
        print(_many(sys.argv[2]))
        raise SystemExit
    if sys.argv[2] == "llama":
        _train_llama(sys.argv[1])
    else:
        _train(*sys.argv[1:])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
