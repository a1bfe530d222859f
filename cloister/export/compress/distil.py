"""Distils the trained model into a smaller one on public texts.

Hinton et al. 2015 (arXiv:1503.02531): the student learns the teacher's whole distribution over the
classes, softened by a temperature, and needs no labels. As in DistilBERT (Sanh et al. 2019,
arXiv:1910.01108) a student with fewer layers starts from the teacher's remaining layers. For
several labels and for scores, each output is a distribution over two outcomes; for tags and for a
chat, there is one distribution for each token.

Dropout is off, so that the same seed gives the same student. Embeddings are not trained: they hold
most of a small base's parameters, and the public texts contain few of their rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.export.compress.distance import divergence
from cloister.export.compress.settings import Compression
from cloister.models.network import Network
from cloister.seeds import child_seed
from cloister.tasks.task import Example, Task

# Texts in a step: usual for fine-tuning (Devlin et al. 2019, appendix A.3: 16 or 32).
BATCH = 32
# Share of the steps in which the learning rate rises, as for BERT and DistilBERT.
WARM_UP = 0.1
# Largest norm of a step's gradient, as for BERT.
MOST_GRADIENT = 1.0


@dataclass(frozen=True)
class Reader:
    """A model, and the public texts encoded for it.

    Attributes:
        network: The model, without adapters.
        task: The task with the model's tokenizer.
        examples: The encoded texts.
    """

    network: Network
    task: Task
    examples: Sequence[Example]

    def logits(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Computes the logits of the texts at these positions; also returns their token mask."""
        batch = self.task.collate([self.examples[place] for place in places])
        found: Tensor = self.network(**self.network.inputs(batch))
        return found, batch.attention_mask


def distil(
    teacher: Reader,
    student: Reader,
    settings: Compression,
    masks: Mapping[str, Tensor],
    on_stage: Callable[[str], None],
    *,
    trains_head: bool,
) -> tuple[float, ...]:
    """Trains the student in place on the teacher's outputs.

    Args:
        teacher: The trained model.
        student: The smaller model, with the same texts in the same order.
        settings: Epochs, temperature, learning rate and seed.
        masks: By name of a matrix in the base, a mask of 0 and 1; weights at 0 stay zero.
        on_stage: Called at the start of each epoch with its number and the previous epoch's loss.
        trains_head: Whether the head is trained too; a head that is the teacher's is not.

    Returns:
        The mean loss of each epoch, in nats for each record.

    Raises:
        UsageError: The loss is not a number, because the learning rate is too large.
    """
    network, count = student.network, len(student.examples)
    trained = _trained(network, trains_head=trains_head)
    bound = {name: p for name, p in network.base.named_parameters() if name in masks}
    steps = settings.epochs * math.ceil(count / BATCH)
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, steps))
    generator = torch.Generator().manual_seed(child_seed(settings.seed, "distillation"))
    losses: list[float] = []
    for epoch in range(settings.epochs):
        before = f", loss {losses[-1]:.4f}" if losses else ""
        on_stage(f"teaching the student, epoch {epoch + 1} of {settings.epochs}{before}")
        total = 0.0
        order = torch.randperm(count, generator=generator).tolist()
        for first in range(0, count, BATCH):
            places = order[first : first + BATCH]
            with torch.no_grad():
                wanted, mask = teacher.logits(places)
            found, _ = student.logits(places)
            loss = divergence(teacher.task, wanted, found, mask, settings.temperature)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, MOST_GRADIENT)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for name, parameter in bound.items():
                    parameter.mul_(masks[name])
            total += float(loss.detach()) * len(places)
        losses.append(total / count)
        if not math.isfinite(losses[-1]):
            raise UsageError(
                f"learning_rate: {settings.learning_rate:g} given, and the student's loss became "
                "NaN or infinite; give a smaller one"
            )
    network.requires_grad_(False)
    return tuple(losses)


def _trained(network: Network, *, trains_head: bool) -> list[nn.Parameter]:
    """Returns the parameters to train: all of the base's, except input and output embeddings."""
    base = network.base
    frozen = [base.get_input_embeddings(), base.get_output_embeddings()]
    still = {id(p) for module in frozen if module is not None for p in module.parameters()}
    chosen = [p for p in base.parameters() if id(p) not in still]
    if trains_head and network.head is not None:
        chosen += network.head.parameters()
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _pace(step: int, steps: int) -> float:
    """Returns the learning rate's factor: up in the first tenth of the steps, then down to zero."""
    rise = max(1, round(WARM_UP * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))
