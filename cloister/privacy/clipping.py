"""Per-unit clipping onto an integer grid: a sum of contributions that carries its own sensitivity.

Shapes: U units in a physical batch; one tensor for each trainable parameter, [U, …] before and
[…] after the sum; d coordinates over all parameters.

Math:
    S = Σ_i round(g_i · min(1, C′ / ‖g_i‖₂) / γ), the norm taken over all parameters at once
    (Abadi et al. 2016, arXiv:1607.00133, algorithm 1), in units of the grid γ. Rounding lengthens
    a vector by at most √d · γ/2, so C′ = C − √d · γ/2 keeps every contribution at or under C. The
    sum is of integers: exact, in any order (Mironov 2012, "On significance of the least
    significant bits for differential privacy").

    A unit's contribution is a function of its own row, bit for bit, for any U, other rows, threads
    or device: norms are sums in halves, by elementwise additions alone, whose results IEEE 754
    fixes. (torch's own sums choose their order by shape and threads.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloister.privacy.products import Gradient
from cloister.privacy.row_blocks import Scales, scaled, scaled_sums, squares_of, sum_in_halves

# Contributions are clipped to C less this fraction, which covers the rounding of clipping itself.
# With u = 2⁻²⁴, float32's rounding: a square is off by u; a sum in halves of n squares, all
# positive, by ⌈log₂ n⌉ · u more, and the sum over P tensors by ⌈log₂ P⌉ · u. For n ≤ 2³¹ and P ≤
# 2¹⁵ that is 47u; the root halves it and adds u. C′ as float32, the division by the norm and the
# product with the gradient add u each; dividing by the grid, a power of two, adds nothing. Squares
# below 2⁻¹²⁶ may vanish, at most 2³¹ · 2⁻¹²⁶ in sum: a vector longer than 2⁻³⁵ loses u/4 by it, a
# shorter one is not clipped (`LEAST_BOUND`). Together 27.75u = 1.7·10⁻⁶; about twice that is kept.
MARGIN = 4e-6

# Smallest bound that `MARGIN` was derived for: vectors shorter than 2⁻³⁵ must lie below it.
LEAST_BOUND = 2.0**-30

# The grid is C/2³⁰ or finer: √d · γ/2 then stays below 5·10⁻⁶ C up to d = 10⁸, and sums of 2²²
# contributions below 2⁵³, where float64 still holds every integer.
GRID_BITS = 30


def grid_of(bound: float) -> float:
    """Returns γ, the grid of sums that are clipped to this bound C.

    Args:
        bound: C, above 0.

    Returns:
        A power of two in (C/2³¹, C/2³⁰].
    """
    return 2.0 ** (math.floor(math.log2(bound)) - GRID_BITS)


@dataclass(frozen=True)
class ClippedSum:
    """A sum over units in which each contributes a vector of norm at most `bound`.

    Attributes:
        tensors: int64, in units of `grid`, one for each trainable parameter.
        bound: The L2 sensitivity under adding or removing one unit.
        coarse: The grid, if it is not the default one of the bound.
    """

    tensors: tuple[Tensor, ...]
    bound: float
    coarse: float | None = None

    @property
    def grid(self) -> float:
        """The value of one grid step."""
        return grid_of(self.bound) if self.coarse is None else self.coarse

    def __add__(self, other: ClippedSum) -> ClippedSum:
        """Adds sums over disjoint sets of units; the sensitivity stays the same.

        Raises:
            ValueError: The bounds or the grids differ.
        """
        total = ClippedSum(tuple(t.clone() for t in self.tensors), self.bound, self.coarse)
        total += other
        return total

    def __iadd__(self, other: ClippedSum) -> ClippedSum:
        """Adds into this sum's own tensors, without memory for a third sum."""
        if (self.bound, self.grid) != (other.bound, other.grid):
            raise ValueError(
                f"bounds {self.bound} and {other.bound}, or grids {self.grid} and {other.grid}, "
                "differ"
            )
        for own, added in zip(self.tensors, other.tensors, strict=True):
            own.add_(added)
        return self


def within(total: ClippedSum, room: int) -> ClippedSum:
    """Returns the sum with every coordinate cut to ±`room` grid steps.

    Guarantees:
        The bound stays the sensitivity: cutting coordinates never increases the distance of two
        sums.
    """
    cut = tuple(tensor.clamp(-room, room) for tensor in total.tensors)
    return ClippedSum(cut, total.bound, total.coarse)


def empty_sum(parameters: Sequence[Tensor], bound: float, grid: float | None = None) -> ClippedSum:
    """Returns the sum over no unit: zeros with the parameters' shapes."""
    return ClippedSum(
        tuple(torch.zeros_like(p, dtype=torch.int64) for p in parameters), bound, grid
    )


def clip_and_sum(
    per_unit: Sequence[Gradient], bound: float, grid: float | None = None
) -> ClippedSum:
    """Clips each unit's gradient over all parameters at once, rounds it to the grid, and sums.

    Args:
        per_unit: One tensor [U, …] for each trainable parameter, of any floating type; or its
            factors.
        bound: C, the largest norm that one unit contributes.
        grid: γ, a power of two; None: `grid_of(bound)`.

    Returns:
        The sum with its sensitivity.

    Raises:
        TypeError: A gradient is not of floating type.
        ValueError: The grid is so coarse that rounding alone reaches the bound, or the bound is
            below `LEAST_BOUND`.

    Guarantees:
        Norms and clipping are in float32 whatever the input's type, the sum is exact. A unit whose
        gradient is not finite, or whose squared norm overflows, contributes zero, and no other
        unit's contribution changes. Every contribution's norm is at most `bound`.
    """
    scales = _scales(per_unit, bound, grid)
    return ClippedSum(scaled_sums(per_unit, scales), bound, grid)


def contributions(
    per_unit: Sequence[Gradient], bound: float, grid: float | None = None
) -> tuple[Tensor, ...]:
    """Returns each unit's contribution in grid steps: integers in float32, [U, …] per parameter.

    Arguments, errors and guarantees are those of `clip_and_sum`; no row depends on another.
    """
    scales = _scales(per_unit, bound, grid)
    return tuple(scaled(g, scales) for g in per_unit)


def _scales(per_unit: Sequence[Gradient], bound: float, grid: float | None) -> Scales:
    if not all(g.is_floating_point() for g in per_unit):
        raise TypeError("gradients of integers cannot be clipped; train floating parameters only")
    if bound < LEAST_BOUND:
        raise ValueError(f"a bound of {bound:g} was given; at least {LEAST_BOUND:g} is needed")
    step = grid_of(bound) if grid is None else grid
    lengthening = math.sqrt(sum(math.prod(g.shape[1:]) for g in per_unit if len(g))) * step / 2
    if lengthening >= bound:
        raise ValueError(f"a grid of {step:g} is too coarse for a bound of {bound:g}")
    norms = sum_in_halves(squares_of(per_unit)).sqrt()
    usable = torch.isfinite(norms)
    target = (bound - lengthening) * (1 - MARGIN)
    # The least divisor avoids a division by 0 for a gradient of 0.
    factors = (target / norms.clamp_min(1e-30)).clamp_max(1.0) / step
    # A unit whose gradient is not finite contributes zero. It would otherwise turn the whole sum
    # into NaN, which no noise hides.
    factors = torch.where(usable, factors, torch.zeros_like(factors))
    # Do not ask a GPU whether all rows are usable: the host would wait for the answer.
    clean = not norms.is_cuda and bool(usable.all())
    return Scales(factors, None if clean else ~usable)
