"""Private steps beside the same batch's step in stock PEFT, and beside a plain one.

A stock step is what a script around PEFT does: the base with its adapters in a forward and a
backward pass, the mean loss, SGD. A private one computes each record's gradient, clips, sums and
noises it. Both run the same records in the same shape, in turns, in CPU time of one thread.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.figure import Figure
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import Network, trained_parameters
from cloister.privacy.clipping import clip_and_sum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import BatchShape, Task
from cloister.training.gradients import per_record_hooks, record_gradients
from cloister.training.passes import Pass, Row
from cloister.training.synthetic_batches import SyntheticBatches
from cloister.training.workspace import open_workspace

ATTENTION = ("query", "value")
# All linear layers of MiniLM's encoder; its pooler, which is not used, is left out.
LINEAR = ("query", "key", "value", "intermediate.dense", "output.dense")


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        name: What it is called.
        targets: Modules with adapters.
        rank: Of the adapters; 128 on all layers of MiniLM are 5.3 million parameters.
        rows: Records of the batch.
        tokens: Of each record, padding included.
        most: What private over stock may be.
    """

    name: str
    targets: tuple[str, ...]
    rank: int
    rows: int
    tokens: int
    most: float


WORKS = (
    Work("MiniLM q,v", ATTENTION, 8, 32, 64, 1.03),
    Work("MiniLM q,v", ATTENTION, 8, 64, 16, 1.03),
    Work("MiniLM all linear", LINEAR, 8, 32, 64, 1.08),
    Work("MiniLM all linear", LINEAR, 8, 64, 16, 1.08),
    Work("MiniLM 5.3 million trained", LINEAR, 128, 64, 16, 1.5),
)


def figures(turns: int) -> Iterator[Figure]:
    """Private over stock PEFT.

    Args:
        turns: How often both are measured, in turns; the median of the ratios counts.
    """
    torch.set_num_threads(1)
    for work in WORKS:
        stock, private, clip = _steps(work)
        times = []
        for _ in range(turns + 1):  # the first warms up
            times.append(tuple(map(cpu_seconds, (stock, private, clip))))
        ratios = [(b / a, c / a) for a, b, c in times[1:]]
        print(
            f"{work.name} {work.rows} x {work.tokens}: stock step "
            f"{statistics.median(t[0] for t in times[1:]):.3f} s, clip and sum over it "
            f"{statistics.median(clip for _, clip in ratios):.3f}",
            flush=True,
        )
        yield Figure(
            f"private over stock PEFT, {work.name}, {work.rows} x {work.tokens}",
            statistics.median(private for private, _ in ratios),
            work.most,
            "at most",
        )


def _steps(work: Work) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
    lora = LoraConfig(r=work.rank, target_modules=work.targets, train="both", top_layers=0)
    workspace = open_workspace(
        ModelConfig(), lora, TaskConfig(max_length=work.tokens), ("a", "b"), 0
    )
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    draws = SyntheticBatches(task, network.vocabulary)
    records = [draws.example(work.tokens - 1) for _ in range(work.rows)]
    shape = BatchShape(work.rows, work.tokens, (work.rows,))
    group = Pass(shape, tuple(Row(i, example) for i, example in enumerate(records)))
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def stock() -> None:
        batch = task.collate(records, shape)
        logits = network(batch.input_ids, batch.attention_mask, multiple=8)
        task.record_losses(logits, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    with per_record_hooks(network):
        kept = record_gradients(network, task, group, parameters)

    def clip() -> None:
        clip_and_sum(kept, 1.0)

    return stock, private_step(network, task, group, optimizer), clip


def private_step(
    network: Network, task: Task, group: Pass, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """A step on one pass: each record's gradient, clipped, summed and noised."""
    parameters = [p for _, p in trained_parameters(network)]
    entropy = OsEntropy()

    def private() -> None:
        with per_record_hooks(network):
            total = clip_and_sum(record_gradients(network, task, group, parameters), 1.0)
        noised = add_noise(total, 1.0, entropy).tensors
        for parameter, tensor in zip(parameters, noised, strict=True):
            parameter.grad = tensor / len(group.rows)
        optimizer.step()
        optimizer.zero_grad()

    return private


def cpu_seconds(step: Callable[[], object]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started
