"""The head of retrieval: the cosine of a query's vector with those of public passages.

Shapes: B queries, H hidden units, K passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloister.models.adapters_off import adapters_off
from cloister.models.network import HEAD_DEVIATION, Network
from cloister.seeds import child_seed
from cloister.tasks.retrieval import Retrieval

# Coordinates of a passage's vector are rounded to multiples of it. Machines that sum in another
# order differ in the last bits, so after rounding they nearly always get the same vector. Rounding
# a vector of length 1 with 384 coordinates of about 0.05 turns it by an angle of about 0.001.
STEP = 2.0**-12
# Least number of columns of the product with the passages; missing ones are filled with zeros.
# Measured: with 2 or 3 columns the result of MKL's float32 kernel depends on a row's position in
# the batch, so a record's gradient would depend on other records; with 5 or more it does not.
LEAST = 8


class PassageHead(nn.Module):
    """Computes the cosines of queries with K fixed passages.

    Attributes:
        map: An H × H matrix that is applied to a query's vector first; None: there is none.
        down: With `up`, a step of rank r that is added to a query's vector; None: there is none.
        up: See `down`.
        passages: Vectors of length 1, [K, H]; public, and never trained.
    """

    passages: Tensor

    def __init__(self, kind: str, hidden: int, outputs: int, r: int, seed: int) -> None:
        """Makes a head whose map is initially the identity.

        Args:
            kind: `linear` learns an H × H map, `lora` a step of rank r, `frozen` none.
            hidden: H.
            outputs: K.
            r: Rank of a low-rank step.
            seed: The study's seed.
        """
        super().__init__()
        self.map = nn.Linear(hidden, hidden, bias=False) if kind == "linear" else None
        self.down = nn.Linear(hidden, r, bias=False) if kind == "lora" else None
        self.up = nn.Linear(r, hidden, bias=False) if kind == "lora" else None
        generator = torch.Generator().manual_seed(child_seed(seed, "head"))
        with torch.no_grad():
            if self.map is not None:
                self.map.weight.copy_(torch.eye(hidden))
            if self.down is not None and self.up is not None:
                self.down.weight.normal_(0.0, HEAD_DEVIATION, generator=generator)
                self.up.weight.zero_()
        self.register_buffer("passages", torch.zeros(outputs, hidden), persistent=False)

    def mapped(self, features: Tensor) -> Tensor:
        """Maps features [B, H] to vectors [B, H], which are not normalized."""
        if self.map is not None:
            features = self.map(features)
        if self.down is not None and self.up is not None:
            features = features + self.up(self.down(features))
        return features

    def turned(self, features: Tensor) -> Tensor:
        """Maps features [B, H] to the vectors that are compared, [B, H], each of length 1."""
        return F.normalize(self.mapped(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the cosines [B, K] of features [B, H] with the passages."""
        count = len(self.passages)
        filled = F.pad(self.passages, (0, 0, 0, max(LEAST - count, 0)))
        return (self.turned(features) @ filled.T)[:, :count]

    def matrix(self) -> Tensor:
        """Returns the map as one matrix, [H, H]."""
        with torch.no_grad():
            unit = torch.eye(self.passages.shape[1], device=self.passages.device)
            return self.mapped(unit).T


def passage_vectors(network: Network, task: Retrieval, texts: Sequence[str]) -> Tensor:
    """Computes the vectors of passages with the base alone, one passage at a time.

    Args:
        network: Base and adapters; it is not changed.
        task: The study's task, which cuts and pads texts.
        texts: Public passages, or the passages of an index.

    Returns:
        float32 [K, H] on the CPU, each of length 1 before it is rounded to `STEP`.

    Guarantees:
        A passage's vector depends only on the base and the passage.
    """
    found = []
    with torch.no_grad(), adapters_off(network):
        for text in texts:
            vector = network.pooled(task.collate([task.encode_passage(text)])).cpu()
            found.append(torch.round(F.normalize(vector, dim=-1) / STEP) * STEP)
    return torch.cat(found)


def set_passages(network: Network, task: Retrieval) -> None:
    """Computes the vectors of the study's passages and stores them in a network's head."""
    head: Any = network.head
    head.passages.copy_(passage_vectors(network, task, task.passages))
