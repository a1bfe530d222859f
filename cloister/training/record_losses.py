"""Computes one loss per record, in the cheapest way that task and base allow."""

from __future__ import annotations

from torch import Tensor

from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.task import Batch, Task


def record_losses(network: Network, task: Task, batch: Batch) -> Tensor:
    """Computes the task's loss of each record of a batch, float32 [B], on the network's device.

    Args:
        network: Base, adapters and head.
        task: The study's task.
        batch: Examples, in a fixed shape or not.

    Guarantees:
        Equals `task.record_losses(network.logits(batch), batch)` up to rounding; for chats it
        computes no logits of tokens that are not learnt (`cloister.models.token_head`).
    """
    if isinstance(task, CausalChat):
        return task.means(network.token_losses(batch), batch)
    return task.record_losses(network.logits(batch), batch)
