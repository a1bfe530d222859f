"""Per-unit clipping onto an integer grid: a sum of contributions that carries its own sensitivity.

Shapes: U units in a physical batch; one tensor for each trainable parameter, [U, …] before and
[…] after the sum; d coordinates over all parameters.

Math:
    S = Σ_i round(g_i · min(1, C′ / ‖g_i‖₂) / γ), the norm taken over all parameters at once
    (Abadi et al. 2016, arXiv:1607.00133, algorithm 1), in units of the grid γ. Rounding lengthens
    a vector by at most √d · γ/2, so C′ = C − √d · γ/2 keeps every contribution at or under C. The
    sum is of integers: exact, in any order (Mironov 2012, "On significance of the least
    significant bits for differential privacy").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Contributions aim this far below C. What it covers, in parts of C: float32 norms and factors
# (4·10⁻⁶: torch sums squares in four cascaded levels of at least 16, so a sum of 10⁶ of them is off
# by at most 64 · 2⁻²⁴, its root by half of that); and that a unit changes, by the padding and the
# order of sums inside the network, how its companions' gradients are rounded. Of the latter at most
# 3·10⁻⁵ was found with 32 to 79 companions, float32, and adapters of values up to 100, the most
# that a site takes (`max_adapter_value`). Where a network computes in less than float32, units are
# computed one by one and have no companions.
MARGIN = 1e-3

# The grid is C/2³⁰ or finer: √d · γ/2 then stays below 5·10⁻⁶ C up to d = 10⁸, and sums of 2²²
# contributions below 2⁵³, where float64 still holds every integer.
GRID_BITS = 30


def grid_of(bound: float) -> float:
    """The grid γ of sums with this bound: a power of two in (C/2³¹, C/2³⁰]."""
    return 2.0 ** (math.floor(math.log2(bound)) - GRID_BITS)


@dataclass(frozen=True)
class ClippedSum:
    """A sum over units in which each contributes a vector of norm at most `bound`.

    Attributes:
        tensors: int64, in units of `grid`, one for each trainable parameter.
        bound: The L2 sensitivity under adding or removing one unit.
        coarse: The grid, where it is not the bound's own.
    """

    tensors: tuple[Tensor, ...]
    bound: float
    coarse: float | None = None

    @property
    def grid(self) -> float:
        """What one unit of the integers stands for."""
        return grid_of(self.bound) if self.coarse is None else self.coarse

    def __add__(self, other: ClippedSum) -> ClippedSum:
        """Sums over disjoint sets of units: the sensitivity stays.

        Raises:
            ValueError: The bounds or the grids differ.
        """
        if (self.bound, self.grid) != (other.bound, other.grid):
            raise ValueError(
                f"bounds {self.bound} and {other.bound}, or grids {self.grid} and {other.grid}, "
                "differ"
            )
        return ClippedSum(
            tuple(a + b for a, b in zip(self.tensors, other.tensors, strict=True)),
            self.bound,
            self.coarse,
        )


def within(total: ClippedSum, room: int) -> ClippedSum:
    """The sum with every coordinate cut to at most `room` grid steps either way.

    Guarantees:
        The bound stays the sensitivity: cutting coordinates brings no two sums further apart.
    """
    cut = tuple(tensor.clamp(-room, room) for tensor in total.tensors)
    return ClippedSum(cut, total.bound, total.coarse)


def empty_sum(parameters: Sequence[Tensor], bound: float, grid: float | None = None) -> ClippedSum:
    """The sum over no unit: zeros shaped as the parameters."""
    return ClippedSum(
        tuple(torch.zeros_like(p, dtype=torch.int64) for p in parameters), bound, grid
    )


def clip_and_sum(per_unit: Sequence[Tensor], bound: float, grid: float | None = None) -> ClippedSum:
    """Clips each unit's gradient over all parameters at once, rounds it to the grid, and sums.

    Args:
        per_unit: One tensor [U, …] for each trainable parameter, of any floating type.
        bound: C, the largest norm that one unit contributes.
        grid: γ, a power of two; None: as fine as `grid_of(bound)`.

    Returns:
        The sum with its sensitivity.

    Raises:
        TypeError: A gradient is not of floating type.
        ValueError: The grid is so coarse that rounding alone reaches the bound.

    Guarantees:
        Norms and clipping are in float32 whatever the input's type, the sum is exact. A unit whose
        gradient is not finite, or whose squared norm overflows, contributes zero, and no other
        unit's contribution changes. Every contribution's norm is at most `bound`.
    """
    if not all(g.is_floating_point() for g in per_unit):
        raise TypeError("gradients of integers cannot be clipped; train floating parameters only")
    gradients = [g.to(torch.float32) for g in per_unit]
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0)
    norms = squares.sqrt()
    usable = torch.isfinite(norms)
    step = grid_of(bound) if grid is None else grid
    lengthening = math.sqrt(sum(g[0].numel() for g in gradients if len(g))) * step / 2
    if lengthening >= bound:
        raise ValueError(f"a grid of {step:g} is too coarse for a bound of {bound:g}")
    target = (bound - lengthening) * (1 - MARGIN)
    factors = (target / norms.clamp_min(1e-30)).clamp_max(1.0) / step
    factors = torch.where(usable, factors, torch.zeros_like(factors))
    clean = bool(usable.all())
    return ClippedSum(
        tuple(_rounded_sum(g if clean else _without(g, usable), factors) for g in gradients),
        bound,
        grid,
    )


def _rounded_sum(gradient: Tensor, factors: Tensor) -> Tensor:
    """Σ round(factor · row), int64."""
    integers = (gradient * _beside(factors, gradient)).round_()
    return integers.sum(dim=0, dtype=torch.float64).to(torch.int64)  # below 2⁵³: exact in float64


def _without(gradient: Tensor, usable: Tensor) -> Tensor:
    """Zeroes the unusable units' rows; 0 · NaN would stay NaN."""
    return torch.where(_beside(usable, gradient), gradient, torch.zeros_like(gradient))


def _beside(values: Tensor, gradient: Tensor) -> Tensor:
    """One value a unit, [U], shaped to multiply its row."""
    return values.view(-1, *[1] * (gradient.dim() - 1))
