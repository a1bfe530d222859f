"""Measures how far a compressed model's outputs are from the trained model's.

Shapes: B records, T tokens, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cloister.models.network import Network
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.task import Batch, Example, Task
from cloister.training.batches import physical_batches
from cloister.training.config import PLAIN_TOKENS
from cloister.training.units import singles

# Most texts for a comparison; each choice of a layer or head reads all of them. The standard error
# of a mean of 512 divergences is 1/23 of one divergence's standard deviation (√512 = 22.6).
MOST_COMPARED = 512
# Most logits of the trained model that are kept in memory: 256 MiB in float32.
MOST_KEPT = 2**26
# Tasks with one sigmoid for each output, so that each output is a distribution over two outcomes.
_SIGMOID = ("multi-label-classification", "scoring")


def divergence(
    task: Task, own: Tensor, other: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """Returns the mean over records of the Kullback-Leibler divergence KL(own ‖ other).

    Args:
        task: Decides what logits mean: one softmax for one label; a sigmoid for each output for
            several labels and for scores; a softmax for each token for tags and for a chat.
        own: Logits of the trained model, [B, C] or [B, T, C].
        other: Logits of the compressed model, of the same shape.
        mask: 1 at tokens, 0 at padding, [B, T].
        temperature: Logits are divided by it, and the result is multiplied by its square, so that
            gradients keep their size (Hinton et al. 2015, section 2).

    Returns:
        A scalar in nats, through which gradients flow to `other`. Rounding may make it slightly
        negative.
    """
    scale = temperature * (task.temperature if isinstance(task, Retrieval) else 1.0)
    own, other = own.float() / scale, other.float() / scale
    if task.kind in _SIGMOID:
        share = own.sigmoid()
        # log σ(−z) = log σ(z) − z, so the sum over both outcomes needs no logarithm of zero.
        gap = share * (F.logsigmoid(own) - F.logsigmoid(other)) + (1 - share) * (
            F.logsigmoid(-own) - F.logsigmoid(-other)
        )
    else:
        logs = own.log_softmax(dim=-1)
        gap = logs.exp() * (logs - other.log_softmax(dim=-1))
    rows = gap.sum(dim=-1)
    if rows.dim() == 2:
        counted = mask.to(rows.dtype)
        rows = (rows * counted).sum(dim=1) / counted.sum(dim=1)
    return rows.mean() * temperature**2


@dataclass(frozen=True)
class ComparedBatch:
    """A batch of public texts with the trained model's logits.

    Attributes:
        places: Positions of its texts in the list of all texts.
        batch: The texts as the compared network reads them.
        logits: The trained model's logits for them.
    """

    places: tuple[int, ...]
    batch: Batch
    logits: Tensor


@dataclass(frozen=True)
class Reference:
    """The trained model's outputs on public texts, with which smaller models are compared.

    Attributes:
        task: The task of the networks that are compared.
        kept: The batches of texts.
    """

    task: Task
    kept: tuple[ComparedBatch, ...]

    def distance(self, network: Network) -> float:
        """Returns the mean divergence of a network's outputs, in nats for each record."""
        total = 0.0
        with torch.no_grad():
            for one in self.kept:
                found = network(**network.inputs(one.batch))
                gap = divergence(self.task, one.logits, found, one.batch.attention_mask)
                total += len(one.places) * float(gap)
        return max(0.0, total / self.records)  # rounding may make it slightly negative

    def read_by(self, task: Task, examples: Sequence[Example]) -> Reference:
        """Returns the same reference for a network whose base has another tokenizer.

        Args:
            task: The task with that tokenizer.
            examples: All texts, encoded with it, in their order.
        """
        return Reference(
            task,
            tuple(
                replace(one, batch=task.collate([examples[place] for place in one.places]))
                for one in self.kept
            ),
        )

    @property
    def records(self) -> int:
        """Number of texts that are compared."""
        return sum(len(one.places) for one in self.kept)


def reference(network: Network, task: Task, examples: Sequence[Example]) -> Reference:
    """Computes a model's outputs on the texts, or on evenly spaced ones if there are too many."""
    chosen = _even_part(network, task, examples)
    places = {id(examples[place]): place for place in chosen}
    kept: list[ComparedBatch] = []
    with torch.no_grad():
        for group in physical_batches(singles([examples[place] for place in chosen]), PLAIN_TOKENS):
            batch = task.collate([example for (example,) in group])
            logits = network(**network.inputs(batch)).float()
            kept.append(ComparedBatch(tuple(places[id(one)] for (one,) in group), batch, logits))
    return Reference(task, tuple(kept))


def _even_part(network: Network, task: Task, examples: Sequence[Example]) -> range:
    """Returns the positions of the texts that are compared: all, or every second, third, …"""
    is_by_token = task.record_kind in ("tokens", "messages")
    outputs = len(task.labels) or network.vocabulary
    step = -(-len(examples) // MOST_COMPARED)
    while True:
        chosen = range(0, len(examples), step)
        tokens = (len(examples[place].input_ids) if is_by_token else 1 for place in chosen)
        if outputs * sum(tokens) <= MOST_KEPT or len(chosen) == 1:
            return chosen
        step *= 2
