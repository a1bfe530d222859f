"""The gradient of one logical batch: per unit and clipped, or plain.

Math:
    A unit's gradient is the mean of its records' gradients; a batch's is the sum of its units'.

Shapes: B records, U units of a physical batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor

from cloister.models.network import Network, trained_parameters
from cloister.privacy.clipping import ClippedSum, clip_and_sum, empty_sum
from cloister.tasks.task import Task
from cloister.training.batches import physical_batches
from cloister.training.units import UnitExamples


@contextmanager
def per_record_hooks(network: Network) -> Iterator[None]:
    """Lets every backward pass leave `grad_sample` [B, …] on the trained parameters.

    Works by Opacus' hooks (Yousefpour et al. 2021, arXiv:2109.12298) on a loss that is a sum over
    records.
    """
    hooks = GradSampleHooks(network, loss_reduction="sum")
    try:
        with warnings.catch_warnings():
            # Nothing below the lowest adapter needs gradients, so its input asks for none.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    finally:
        hooks.remove_hooks()
        for _, parameter in trained_parameters(network):
            parameter.grad_sample = None  # type: ignore[attr-defined]


def clipped_gradient_sum(
    network: Network,
    task: Task,
    units: Sequence[UnitExamples],
    bound: float,
    max_tokens: int,
    grid: float | None = None,
) -> ClippedSum:
    """Sums clipped per-unit gradients; call it within `per_record_hooks`.

    Args:
        network: Its trained parameters get no `.grad`.
        task: Its per-record loss.
        units: The logical batch; may be empty.
        bound: Norm to which each unit's gradient is clipped, over all trained parameters.
        max_tokens: Padded tokens of a physical batch; 0: every unit for itself.
        grid: Of the sum's integers; None: the bound's own.

    Guarantees:
        Does not depend on how the batch is cut, nor a unit's contribution on the other units, but
        for float32 rounding inside the network, which `clipping.MARGIN` covers. A network that
        computes in less than float32 gets every unit for itself.
    """
    parameters = [p for _, p in trained_parameters(network)]
    total = empty_sum(parameters, bound, grid)
    for group in physical_batches(units, max_tokens if network.is_float32 else 0):
        _backward(network, task, group)
        owners = [number for number, unit in enumerate(group) for _ in unit]
        rows = [_by_unit(_taken(p), owners) for p in parameters]
        total = total + clip_and_sum(rows, bound, grid)
    return total


def plain_gradient_sum(
    network: Network, task: Task, units: Sequence[UnitExamples], max_tokens: int
) -> tuple[Tensor, ...]:
    """Sums the units' gradients without clipping."""
    parameters = [p for _, p in trained_parameters(network)]
    for parameter in parameters:
        parameter.grad = None
    for group in physical_batches(units, max_tokens):
        _backward(network, task, group)
    sums = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    for parameter in parameters:
        parameter.grad = None
    return sums


def _backward(network: Network, task: Task, group: Sequence[UnitExamples]) -> None:
    batch = task.collate([example for unit in group for example in unit])
    losses = task.record_losses(network.logits(batch), batch)
    shares = torch.tensor([1 / len(unit) for unit in group for _ in unit], device=losses.device)
    (losses * shares).sum().backward()


def _by_unit(gradients: Tensor, owners: Sequence[int]) -> Tensor:
    """Sums rows [B, …] of the same owner, [U, …], in float32."""
    if len(set(owners)) == len(owners):
        return gradients
    sums = gradients.new_zeros((owners[-1] + 1, *gradients.shape[1:]), dtype=torch.float32)
    place = torch.tensor(owners, device=gradients.device)
    return sums.index_add_(0, place, gradients.to(torch.float32))


def _taken(parameter: Tensor) -> Tensor:
    gradient: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    parameter.grad_sample = None  # type: ignore[attr-defined]
    parameter.grad = None
    return gradient
