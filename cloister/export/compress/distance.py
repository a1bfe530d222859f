"""How far the outputs of a compressed model are from those of the trained one.

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

# Texts that a model is compared on; each choice of a layer or head reads them once. The mean of 512
# divergences has a 23rd of one's spread.
MOST_COMPARED = 512
# Logits that are kept to be compared with: 256 MiB in float32.
MOST_KEPT = 2**26
# Tasks whose outputs are probabilities of their own, each with its complement.
_SIGMOID = ("multi-label-classification", "scoring")


def divergence(
    task: Task, own: Tensor, other: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """Kullback-Leibler divergence of other outputs from a model's own, a mean over records.

    Args:
        task: Says what its logits mean: of one label a softmax, of several and of scores sigmoids,
            of tags and of a chat a softmax for each token.
        own: Logits of the trained model, [B, C] or [B, T, C].
        other: Those that are compared with it.
        mask: 1 at tokens, 0 at padding, [B, T].
        temperature: Logits are divided by it, and the result multiplied by its square, so that
            gradients keep their size (Hinton et al. 2015, section 2).

    Returns:
        In nats, never negative but for rounding: a scalar with `other`'s gradient.
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
    """A batch of public texts.

    Attributes:
        places: Of its texts in the list of all.
        batch: As a network reads them.
        logits: The trained model's.
    """

    places: tuple[int, ...]
    batch: Batch
    logits: Tensor


@dataclass(frozen=True)
class Reference:
    """The trained model's outputs on public texts, which smaller ones are compared with.

    Attributes:
        task: Of the network that is compared.
        kept: The batches.
    """

    task: Task
    kept: tuple[ComparedBatch, ...]

    def distance(self, network: Network) -> float:
        """Mean divergence of a network's outputs, in nats a record."""
        total = 0.0
        with torch.no_grad():
            for one in self.kept:
                found = network(**network.inputs(one.batch))
                gap = divergence(self.task, one.logits, found, one.batch.attention_mask)
                total += len(one.places) * float(gap)
        return max(0.0, total / self.records)  # rounding may give less than nothing

    def read_by(self, task: Task, examples: Sequence[Example]) -> Reference:
        """The same texts as another base's tokenizer cuts them.

        Args:
            task: With that tokenizer.
            examples: All texts, in their order.
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
        """How many texts are compared."""
        return sum(len(one.places) for one in self.kept)


def reference(network: Network, task: Task, examples: Sequence[Example]) -> Reference:
    """Computes a model's outputs on the texts, or on an even part of many, in their order."""
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
    """Places of the texts that are compared: each, or every second, third, … of many."""
    is_by_token = task.record_kind in ("tokens", "messages")
    outputs = len(task.labels) or network.vocabulary
    step = -(-len(examples) // MOST_COMPARED)
    while True:
        chosen = range(0, len(examples), step)
        tokens = (len(examples[place].input_ids) if is_by_token else 1 for place in chosen)
        if outputs * sum(tokens) <= MOST_KEPT or len(chosen) == 1:
            return chosen
        step *= 2
