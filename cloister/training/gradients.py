"""The gradient of one logical batch: per record and clipped, or plain.

Shapes: B records of a physical batch.
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
from cloister.tasks.task import Example, Task
from cloister.training.batches import physical_batches


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
    network: Network, task: Task, examples: Sequence[Example], bound: float, max_tokens: int
) -> ClippedSum:
    """Sums clipped per-record gradients; call it within `per_record_hooks`.

    Args:
        network: Its trained parameters get no `.grad`.
        task: Its per-record loss.
        examples: The logical batch; may be empty.
        bound: Norm to which each record's gradient is clipped, over all trained parameters.
        max_tokens: Padded tokens of a physical batch.

    Guarantees:
        Does not depend on how the batch is cut (up to float32 rounding of the sum).
    """
    parameters = [p for _, p in trained_parameters(network)]
    total = empty_sum(parameters, bound)
    for group in physical_batches(examples, max_tokens):
        _backward(network, task, group)
        total = total + clip_and_sum([_taken(p) for p in parameters], bound)
    return total


def plain_gradient_sum(
    network: Network, task: Task, examples: Sequence[Example], max_tokens: int
) -> tuple[Tensor, ...]:
    """Sums gradients of the records' losses, without clipping."""
    parameters = [p for _, p in trained_parameters(network)]
    for parameter in parameters:
        parameter.grad = None
    for group in physical_batches(examples, max_tokens):
        _backward(network, task, group)
    sums = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    for parameter in parameters:
        parameter.grad = None
    return sums


def _backward(network: Network, task: Task, group: Sequence[Example]) -> None:
    batch = task.collate(group)
    task.record_losses(network.logits(batch), batch).sum().backward()


def _taken(parameter: Tensor) -> Tensor:
    gradient: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    parameter.grad_sample = None  # type: ignore[attr-defined]
    parameter.grad = None
    return gradient
