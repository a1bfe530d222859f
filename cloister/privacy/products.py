"""Per-unit gradients kept as factors of a product; each unit's part is computed when needed.

A gradient of 5 million values takes 1.4 GB for 64 units, its factors 0.1 GB. Memory costs more time
than computing a unit's part twice, for its norm and for the sum.

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
        Each unit's part is a separate product, whose shapes depend on the factors alone, so no
        other unit changes it. It has the same bits each time: the call, the input's memory, the
        output's alignment (64 bytes, torch's default) and the threads are the same, as BLAS
        libraries require ("Intel oneMKL: run-to-run reproducibility"). So the norm is that of the
        part that is added.
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the gradient, [U, O, I]."""
        return torch.Size((len(self.left), self.left.shape[2], self.right.shape[2]))

    @property
    def device(self) -> torch.device:
        """Device that holds the factors."""
        return self.left.device

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, units: slice | list[int]) -> Products:
        """Returns the factors of some of the units."""
        return Products(self.left[units], self.right[units])

    def is_floating_point(self) -> bool:
        """Whether the factors have a floating type, like `Tensor.is_floating_point`."""
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
