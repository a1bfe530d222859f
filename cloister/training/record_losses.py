"""Computes one loss per record: of the record as it is, and of what training makes of it."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from cloister.models.network import Network
from cloister.tasks.chat import CausalChat
from cloister.tasks.task import Batch, Task
from cloister.training.adversary import moved_embeddings


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


def trained_losses(network: Network, task: Task, batch: Batch) -> Tensor:
    """Computes the losses whose gradients train, float32 [B], on the network's device.

    With `network.adversarial_radius` they are those of embeddings that were moved up each record's
    own loss (`cloister.training.adversary`), which takes a second pass; else `record_losses`.

    Guarantees:
        A record's loss depends on that record and the network alone.
    """
    if not network.adversarial_radius:
        return record_losses(network, task, batch)
    if isinstance(task, CausalChat):
        _ = network.token_head  # looked for before embeddings move: that calls the network
    losses = partial(record_losses, network, task, batch)
    with moved_embeddings(network, batch.attention_mask, losses):
        return losses()
