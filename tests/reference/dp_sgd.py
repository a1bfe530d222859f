"""The slow, obvious twin of the private loop: one record at a time, plain autograd."""

from collections.abc import Sequence

import torch

from cloister.models.network import Network, trained_parameters
from cloister.tasks.task import Example, Task


def clipped_sum(
    network: Network, task: Task, examples: Sequence[Example], bound: float
) -> tuple[list[torch.Tensor], float]:
    """Σ_i g_i · min(1, C/‖g_i‖) by a backward pass each, and the sum of the summands' norms."""
    parameters = [p for _, p in trained_parameters(network)]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    norms = 0.0
    for example in examples:
        network.zero_grad(set_to_none=True)
        batch = task.collate([example])
        task.record_losses(network(batch.input_ids, batch.attention_mask), batch).sum().backward()
        gradient = [p.grad.double() for p in parameters if p.grad is not None]
        norm = torch.sqrt(sum(g.square().sum() for g in gradient))  # type: ignore[arg-type]
        factor = min(1.0, bound / float(norm))
        norms += factor * float(norm)
        total = [t + factor * g for t, g in zip(total, gradient, strict=True)]
    network.zero_grad(set_to_none=True)
    return total, norms
