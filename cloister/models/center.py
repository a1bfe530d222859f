"""Computes the centre of a base's features: the part that all texts share, without any record.

Vectors of texts have a large part in common: on SmolLM2's layer 18 it is 0.92 of their length. A
head's gradient of a record is (p - y) f, so most of a clipped gradient only tells how frequent each
class is, and the noise is scaled to it. With f - c in place of f the clip bound is used for what
distinguishes texts.

Math:
    W (f - c) + b = W f + (b - W c): a centred head is a linear head, and is exported as one.

Guarantees:
    c is a function of the base, the prompt and sentences in this package, or of a study's public
    records. It depends on no private record, so it costs no privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cloister.errors import UsageError
from cloister.models.center_texts import CHINESE, ENGLISH
from cloister.models.network import Network
from cloister.tasks.bare_text import encode_bare
from cloister.tasks.task import Task

Language = Literal["english", "chinese"]
TEXTS: dict[Language, tuple[str, ...]] = {"english": ENGLISH, "chinese": CHINESE}

# A centre's coordinates are rounded to multiples of it. Machines that sum in another order differ
# in the last bits of a mean, so after rounding they nearly always get the same centre. For vectors
# of length √H, whose coordinates are near 1, rounding moves them by less than a hundredth.
STEP = 2.0**-6


def feature_center(network: Network, task: Task, language: Language) -> Tensor:
    """Returns the mean vector of the built-in sentences, rounded to `STEP`.

    Args:
        network: With its adapters at their initial values, which do not change the base's outputs.
        task: The study's task; its prompt is put around each sentence.
        language: The language of the sentences.

    Returns:
        [H], float32, on the network's device.
    """
    return mean_vector(network, task, TEXTS[language])


def mean_vector(network: Network, task: Task, texts: Sequence[str]) -> Tensor:
    """Returns the mean vector of public texts, rounded to `STEP`; see `feature_center`.

    Args:
        network: As there.
        task: As there.
        texts: Not empty.
    """
    total: Tensor | None = None
    with torch.no_grad():
        for text in texts:
            vector = network.pooled(task.collate([encode_bare(task, text)]))[0].double()
            total = vector if total is None else total + vector
    assert total is not None
    mean = total / len(texts)
    return (torch.round(mean / STEP) * STEP).to(torch.float32)


def given_center(network: Network, values: Sequence[float] | None, hidden: int) -> Tensor:
    """Returns the centre that a study states, as a tensor on the network's device.

    Args:
        network: The study's.
        values: The study's `model.center_values`.
        hidden: H of the base.

    Raises:
        UsageError: There are none, or not H.
    """
    if values is None or len(values) != hidden:
        raise UsageError(
            f"model.center_values: {'none' if values is None else len(values)} given; the base's "
            f'vectors have {hidden} coordinates. With model.center = "public" the coordinator '
            "fills them in: leave them out of the recipe"
        )
    return torch.tensor(values, dtype=torch.float32, device=network.device)


def uncentred(weight: Tensor, bias: Tensor, center: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns weight [C, H] and bias [C] for plain vectors, equal to a head on centred ones."""
    if center is None:
        return weight, bias
    moved = bias.double() - weight.double() @ center.double()
    return weight, moved.to(bias.dtype)
