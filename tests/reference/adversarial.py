"""The slow twin of adversarial training: one record at a time, its move in float64."""

from collections.abc import Sequence

import torch

from cloister.models.network import Network, trained_parameters
from cloister.tasks.task import Example, Task


def adversarial_clipped_sum(
    network: Network, task: Task, examples: Sequence[Example], bound: float, radius: float
) -> tuple[list[torch.Tensor], float]:
    """Σ_i clip(∇L_i(e_i + ρ ‖e_i‖ g_i / ‖g_i‖)), and the sum of the summands' norms."""
    layer: torch.nn.Module = network.backbone.get_input_embeddings()  # type: ignore[assignment]
    parameters = [p for _, p in trained_parameters(network)]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    norms = 0.0
    for example in examples:
        batch = task.collate([example])  # alone, so there is no padding
        with torch.no_grad():
            embedded = layer(batch.input_ids)

        def loss(embeddings: torch.Tensor) -> torch.Tensor:
            handle = layer.register_forward_hook(lambda module, args, output: embeddings)
            try:
                logits = network(batch.input_ids, batch.attention_mask)  # noqa: B023
            finally:
                handle.remove()
            return task.record_losses(logits, batch).sum()  # noqa: B023

        read = embedded.clone().requires_grad_(True)
        network.zero_grad(set_to_none=True)
        loss(read).backward()
        assert read.grad is not None
        slope = read.grad.double()
        step = radius * embedded.double().norm() * slope / slope.norm()
        network.zero_grad(set_to_none=True)
        loss((embedded.double() + step).to(embedded.dtype)).backward()
        gradient = [p.grad.double() for p in parameters if p.grad is not None]
        norm = float(torch.sqrt(sum(g.square().sum() for g in gradient)))  # type: ignore[arg-type]
        factor = min(1.0, bound / norm)
        norms += factor * norm
        total = [t + factor * g for t, g in zip(total, gradient, strict=True)]
    network.zero_grad(set_to_none=True)
    return total, norms
