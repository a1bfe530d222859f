"""Peak memory of private over plain training, each in a process of its own.

`python -m benchmarks.memory private records` prints one process's peak in bytes.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.figure import Figure
from benchmarks.peft_steps import ATTENTION, LINEAR
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks, plain_gradient_sum
from cloister.training.shapes import candidates
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.units import singles
from cloister.training.workspace import open_workspace

# By name: adapted modules, rank, records, tokens of each, and what private over plain may be.
WORKS = {
    "records": (ATTENTION, 8, 512, 32, 1.1),
    "parameters": (LINEAR, 128, 64, 16, 2.5),
}
NAMES = {"records": "512 records, q,v", "parameters": "5.3 million trained, 64 x 16"}
TOKENS = 1024  # of a pass


def figures() -> Iterator[Figure]:
    """A ratio for each work; peaks are of whole processes, libraries and base included."""
    for work, (_, _, _, _, most) in WORKS.items():
        plain, private = (_peak_of(kind, work) for kind in ("plain", "private"))
        print(f"peak memory, {NAMES[work]}: plain {plain >> 20} MiB, private {private >> 20} MiB")
        yield Figure(f"peak memory over plain, {NAMES[work]}", private / plain, most, "at most")


def _peak_of(kind: str, work: str) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", kind, work]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


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


if __name__ == "__main__":
    _train(*sys.argv[1:])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
