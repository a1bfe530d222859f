"""Per-unit gradients that are kept as the factors of a product, and made a unit at a time.

A gradient of 5 million values is 1.4 GB for 64 units, its factors 0.1 GB; and memory costs more
time than making a unit's part twice, once for its norm and once for the sum.

Shapes: U units, T tokens, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Products:
    """Σ_t left_t rightᵀ_t for each unit, [U, O, I].

    Attributes:
        left: Float32 [U, T, O].
        right: Float32 [U, T, I].

    Guarantees:
        Each unit's part is a product of its own, of shapes that the factors alone set, so no other
        unit changes it. It has the same bits each time that it is made: the call, its input's
        memory, the alignment of its output (64 bytes, torch's own) and the threads are the same,
        which is what BLAS libraries ask for ("Intel oneMKL: run-to-run reproducibility"). Its norm
        is therefore that of what is added.
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the gradient, [U, O, I]."""
        return torch.Size((len(self.left), self.left.shape[2], self.right.shape[2]))

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.left.device

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, units: slice | list[int]) -> Products:
        """Some of the units."""
        return Products(self.left[units], self.right[units])

    def is_floating_point(self) -> bool:
        """As a tensor says it."""
        return self.left.is_floating_point()

    def factors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each unit's factors, [O, T] and [T, I], whose product is its part."""
        return zip(self.left.transpose(1, 2).unbind(), self.right.unbind(), strict=True)

    def of_unit(self, unit: int) -> Tensor:
        """One unit's part, [O, I]."""
        return torch.mm(self.left[unit].t(), self.right[unit])


Gradient = Tensor | Products


def of_unit(gradient: Gradient, unit: int) -> Tensor:
    """One unit's part of a gradient of either kind, […]."""
    return gradient.of_unit(unit) if isinstance(gradient, Products) else gradient[unit]


def whole(gradient: Gradient) -> Tensor:
    """All units' parts of a gradient of either kind, [U, …]."""
    if isinstance(gradient, Products):
        return torch.stack([gradient.of_unit(unit) for unit in range(len(gradient))])
    return gradient
