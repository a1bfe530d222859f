"""Scores a network on public records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from cloister.models.network import Network
from cloister.tasks.chat import ChatMeter
from cloister.tasks.task import Example, Task
from cloister.training.batches import physical_batches
from cloister.training.units import singles


@dataclass(frozen=True)
class Scores:
    """The scores of a network on one set of examples.

    Attributes:
        metrics: Scores by name; the task's primary metric and the mean loss are among them.
        report: Scores per class, where the task has them.
    """

    metrics: Mapping[str, float]
    report: Mapping[str, Mapping[str, float]]


def evaluate(
    network: Network,
    task: Task,
    examples: Sequence[Example],
    max_tokens: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Computes the scores of a network on encoded examples.

    Args:
        network: The network; its present parameters are scored.
        task: The study's task.
        examples: Encoded records, public: scores of private records are releases.
        max_tokens: Padded tokens of a physical batch.
        on_batch: Called with the number of records after each batch, for progress.
    """
    meter = task.meter()
    with torch.no_grad():
        for group in physical_batches(singles(examples), max_tokens):
            batch = task.collate([example for (example,) in group])
            if isinstance(meter, ChatMeter):  # a vocabulary's logits are too large to move
                meter.add_losses(network.token_losses(batch), batch)
            else:
                logits = network.logits(batch)
                meter.add(logits.to(device="cpu", dtype=torch.float32), batch)
            on_batch(len(group))
    return Scores(meter.result(), meter.report())
