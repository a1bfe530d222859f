"""A head that compares a query's vector with the vectors of public passages, by their cosine.

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

# Coordinates of a passage's vector are multiples of it. Machines that sum in another order differ
# in the last bits and so nearly always get the same vector; of one of length 1 with 384 coordinates
# of about 0.05, rounding turns it by 0.001.
STEP = 2.0**-12
# Columns of the product with the passages, at least: zeros fill them up. With 2 or 3 of them MKL's
# float32 kernel was measured to sum a row otherwise by its place, with 5 and more it does not.
LEAST = 8


class PassageHead(nn.Module):
    """Cosines of queries with K fixed passages.

    Attributes:
        map: An H × H map of a query's vector before the comparison; None: there is none.
        down: With `up`, a step of rank r that is added to a query's vector; None: there is none.
        up: See `down`.
        passages: Vectors of length 1, [K, H]; public, and never trained.
    """

    passages: Tensor

    def __init__(self, kind: str, hidden: int, outputs: int, r: int, seed: int) -> None:
        """Makes a head whose map changes nothing yet.

        Args:
            kind: `linear` learns an H × H map, `lora` a step of rank r, `frozen` none.
            hidden: H.
            outputs: K.
            r: Rank of a low-rank step.
            seed: The study's.
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
        """Vectors [B, H] of features [B, H], of any length."""
        if self.map is not None:
            features = self.map(features)
        if self.down is not None and self.up is not None:
            features = features + self.up(self.down(features))
        return features

    def turned(self, features: Tensor) -> Tensor:
        """Vectors of queries as they are compared, of length 1, [B, H]."""
        return F.normalize(self.mapped(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines [B, K] of features [B, H]."""
        count = len(self.passages)
        filled = F.pad(self.passages, (0, 0, 0, max(LEAST - count, 0)))
        return (self.turned(features) @ filled.T)[:, :count]

    def matrix(self) -> Tensor:
        """The map as one matrix, [H, H]."""
        with torch.no_grad():
            unit = torch.eye(self.passages.shape[1], device=self.passages.device)
            return self.mapped(unit).T


def passage_vectors(network: Network, task: Retrieval, texts: Sequence[str]) -> Tensor:
    """Vectors of passages as the base gives them, without its adapters, one passage at a time.

    Args:
        network: Base and adapters; left as it is.
        task: The study's, which cuts and pads.
        texts: Public passages, or an index's.

    Returns:
        float32 [K, H] on the CPU, each of length 1 before it is rounded to `STEP`.

    Guarantees:
        A passage's vector follows from the base and the passage alone.
    """
    found = []
    with torch.no_grad(), adapters_off(network):
        for text in texts:
            vector = network.pooled(task.collate([task.encode_passage(text)])).cpu()
            found.append(torch.round(F.normalize(vector, dim=-1) / STEP) * STEP)
    return torch.cat(found)


def set_passages(network: Network, task: Retrieval) -> None:
    """Gives a network's head the vectors of the study's passages."""
    head: Any = network.head
    head.passages.copy_(passage_vectors(network, task, task.passages))
