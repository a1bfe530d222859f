"""Private against plain steps, and length-sorted against fully padded batches, on MiniLM."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks.figure import Figure
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Example
from cloister.training.gradients import (
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
)
from cloister.training.shapes import candidates
from cloister.training.units import UnitExamples, singles
from cloister.training.workspace import Workspace, open_workspace

RECORDS = 256  # a logical batch of a recipe's size
TOKENS = 2048


def figures(texts: str, turns: int) -> Iterator[Figure]:
    columns = DataConfig(test=None if texts.startswith("synthetic") else texts)
    records = load(texts, "train", "text", columns)
    labels = labels_of(records, "text")
    chosen = records[:: max(len(records) // RECORDS, 1)][:RECORDS]
    for name, lora, cached in (
        ("LoRA on all layers", LoraConfig(train="both", top_layers=0), 0.0),
        ("B of the last layer, frozen layers kept", LoraConfig(), 4.0),
    ):
        workspace = open_workspace(
            ModelConfig(), lora, TaskConfig(), labels, 0, frozen_cache_gib=cached
        )
        units = singles(workspace.encode(chosen))

        def plain(workspace: Workspace = workspace, units: list[UnitExamples] = units) -> None:
            plain_gradient_sum(workspace.network, workspace.task, units, TOKENS)

        def private(workspace: Workspace = workspace, units: list[UnitExamples] = units) -> None:
            shapes = candidates(workspace.task.max_length, TOKENS)
            with per_record_hooks(workspace.network):
                clipped_gradient_sum(workspace.network, workspace.task, units, 1.0, shapes)

        yield Figure(
            f"private step over plain step, {name}", ratio(private, plain, turns), 1.25, "at most"
        )
    workspace = open_workspace(
        ModelConfig(), LoraConfig(train="both", top_layers=0), TaskConfig(), labels, 0
    )
    examples = workspace.encode(chosen)
    yield Figure(
        "throughput of length-sorted batches over padding to max_length",
        ratio(
            lambda: padded_to_max_length(workspace, examples),
            lambda: plain_gradient_sum(workspace.network, workspace.task, units, TOKENS),
            turns,
        ),
        1.5,
        "at least",
    )


def padded_to_max_length(workspace: Workspace, examples: Sequence[Example]) -> None:
    """The same gradients with every record padded to 128 tokens."""
    longest = TaskConfig().max_length
    rows = TOKENS // longest
    for start in range(0, len(examples), rows):
        batch = workspace.task.collate(examples[start : start + rows])
        extra = longest - batch.input_ids.shape[1]
        ids = torch.nn.functional.pad(batch.input_ids, (0, extra))
        mask = torch.nn.functional.pad(batch.attention_mask, (0, extra))
        workspace.task.record_losses(workspace.network(ids, mask), batch).sum().backward()
    workspace.network.zero_grad(set_to_none=True)


def ratio(one: Callable[[], None], other: Callable[[], None], turns: int) -> float:
    """Median over turns of the first's time over the second's, after one turn to warm up."""
    one(), other()
    return statistics.median(seconds(one) / seconds(other) for _ in range(turns))


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
