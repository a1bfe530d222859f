"""What isolation costs: private steps in fixed shapes against the old cut, in CPU time.

The old cut took units longest first and padded each batch to its longest record, which coupled
records by rounding (`docs/privacy.md`); it is kept here as the reference, and nowhere else. Both
sides compute the same logical batches with the same hooks and the same clip, in turns.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.figure import Figure
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import Network, trained_parameters
from cloister.privacy.clipping import ClippedSum, empty_sum, grid_of
from cloister.tasks.build import labels_of
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Task
from cloister.training.batches import physical_batches
from cloister.training.config import TrainingConfig
from cloister.training.gradients import (
    clipped_gradient_sum,
    per_record_hooks,
    plain_gradient_sum,
)
from cloister.training.passes import passes
from cloister.training.proof_key import shapes_to_try
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples, singles
from cloister.training.workspace import open_workspace

BATCHES = (64, 300)
TOKENS = TrainingConfig().plain_tokens
MAX_LENGTH = 64  # of both recipes
# What trains: the recipes' own (B of the last layer's value projections, frozen layers kept), the
# head alone as in their probe rounds, and all layers, where every record passes the whole base.
SETTINGS = {
    "recipe, kept layers": (LoraConfig(r=1, target_modules=("value",)), 4.0),
    "recipe, nothing kept": (LoraConfig(r=1, target_modules=("value",)), 0.0),
    "LoRA on all layers": (LoraConfig(train="both", top_layers=0), 0.0),
}


@dataclass(frozen=True)
class Cell:
    """One data set, setting and logical batch size.

    Attributes:
        ratio: CPU time of a private step over the old cut's; median of the turns.
        over_plain: Over a plain step in the cheapest cut.
        over_plain_padded: Over a plain step in the same fixed shapes, dummies included.
        padded: Tokens that pass, dummies and padding included, over the records' own.
        padded_before: The same of the old cut.
    """

    ratio: float
    over_plain: float
    over_plain_padded: float
    padded: float
    padded_before: float


def figures(texts: Sequence[str], turns: int) -> Iterator[Figure]:
    """A ratio for each data set, setting and batch size; what else was measured is printed.

    Args:
        texts: JSONL files with `text` and `label`, or `synthetic:hospitals`.
        turns: How often old and new are measured, in turns.
    """
    # CPU time of several threads counts what they wait for each other, which varies by a fifth.
    torch.set_num_threads(1)
    for source in texts:
        for setting, (lora, cached) in SETTINGS.items():
            for size, cell in _cells(source, lora, cached, turns):
                name = f"{source.split('/')[-2] if '/' in source else source}, {setting}, {size}"
                print(
                    f"{name}: tokens over real {cell.padded:.2f} (old cut {cell.padded_before:.2f})"
                    f", over plain {cell.over_plain:.2f}, over plain in the same shapes "
                    f"{cell.over_plain_padded:.2f}"
                )
                yield Figure(f"isolated over old cut, {name}", cell.ratio, 1.1, "at most")


def _cells(source: str, lora: LoraConfig, cached: float, turns: int) -> Iterator[tuple[int, Cell]]:
    columns = DataConfig(test=None if source.startswith("synthetic") else source)
    records = load(source, "train", "text", columns)
    workspace = open_workspace(
        ModelConfig(),
        lora,
        TaskConfig(max_length=MAX_LENGTH),
        labels_of(records, "text"),
        0,
        frozen_cache_gib=cached,
    )
    network, task = workspace.network, workspace.task
    shapes = shapes_to_try(workspace, TrainingConfig())
    generator = np.random.default_rng(0)
    for size in BATCHES:
        times: list[tuple[float, float, float, float]] = []
        padded: list[tuple[float, float]] = []
        for _ in range(turns):
            chosen = generator.choice(len(records), size, replace=False)
            units = singles(workspace.encode([records[index] for index in chosen]))
            padded.append(_padding(units, shapes))
            steps: tuple[Callable[[], object], ...] = (
                lambda units=units: _private(network, task, units, shapes),  # type: ignore[misc]
                lambda units=units: _greedy(network, task, units),  # type: ignore[misc]
                lambda units=units: plain_gradient_sum(network, task, units, TOKENS),  # type: ignore[misc]
                lambda units=units: _plain_in_shapes(network, task, units, shapes),  # type: ignore[misc]
            )
            for step in steps if cached else steps[:2] * (not times):
                step()  # kept states, and the first batch's warm-up
            times.append(tuple(map(_cpu_seconds, steps)))  # type: ignore[arg-type]
        yield (
            size,
            Cell(
                *(
                    statistics.median(new / t[at] for t in times for new in (t[0],))
                    for at in (1, 2, 3)
                ),
                *(statistics.mean(ratio) for ratio in zip(*padded, strict=True)),
            ),
        )


def _private(
    network: Network, task: Task, units: Sequence[UnitExamples], shapes: BatchShapes
) -> ClippedSum:
    with per_record_hooks(network):
        return clipped_gradient_sum(network, task, units, 1.0, shapes)


def _greedy(network: Network, task: Task, units: Sequence[UnitExamples]) -> ClippedSum:
    """The old cut: longest first, padded to the longest of each batch."""
    parameters = [parameter for _, parameter in trained_parameters(network)]
    total = empty_sum(parameters, 1.0)
    with per_record_hooks(network):
        for group in physical_batches(units, TOKENS):
            batch = task.collate([example for (example,) in group])
            task.record_losses(network.logits(batch), batch).sum().backward()
            rows = []
            for parameter in parameters:
                rows.append(parameter.grad_sample)  # type: ignore[attr-defined]
                parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
            total = total + _clipped_as_before(rows, 1.0)
    return total


def _clipped_as_before(rows: Sequence[Tensor], bound: float) -> ClippedSum:
    """The clip with torch's own sums, whose order depends on shapes and threads."""
    norms = torch.stack([g.flatten(1).square().sum(dim=1) for g in rows]).sum(dim=0).sqrt()
    factors = (bound / norms.clamp_min(1e-30)).clamp_max(1.0) / grid_of(bound)
    usable = torch.isfinite(norms)
    factors = torch.where(usable, factors, torch.zeros_like(factors))
    if not bool(usable.all()):
        raise ValueError("the benchmark's gradients are finite")
    tensors = []
    for gradient in rows:
        scaled = gradient * factors.view(-1, *[1] * (gradient.dim() - 1))
        tensors.append(scaled.round_().sum(dim=0, dtype=torch.float64).to(torch.int64))
    return ClippedSum(tuple(tensors), bound)


def _plain_in_shapes(
    network: Network, task: Task, units: Sequence[UnitExamples], shapes: BatchShapes
) -> None:
    for group in passes(units, shapes):
        batch = task.collate([row.example for row in group.rows], group.shape)
        losses = task.record_losses(network.logits(batch), batch)
        losses[: len(group.rows)].sum().backward()
    network.zero_grad(set_to_none=True)


def _padding(units: Sequence[UnitExamples], shapes: BatchShapes) -> tuple[float, float]:
    """Tokens that pass over the records' own: in fixed shapes, and in the old cut."""
    lengths = [len(example.input_ids) for (example,) in units]
    fixed = sum(group.shape.rows * group.shape.length for group in passes(units, shapes))
    greedy = sum(
        max(len(example.input_ids) for (example,) in group) * len(group)
        for group in physical_batches(units, TOKENS)
    )
    return fixed / sum(lengths), greedy / sum(lengths)


def _cpu_seconds(step: Callable[[], object]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started
