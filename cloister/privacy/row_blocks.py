"""Squares and sums per-unit gradients in blocks that stay in a core's cache.

The results for a unit's row have the same bits for any other rows, blocks and threads: squares are
added in halves by elementwise additions, and sums over units are of integers.

Shapes: U units; gradients [U, …], read as rows [U, n]; K gradients of one width together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cloister.privacy.products import Gradient, Products, whole

# Values of a block: 256 KiB of float32. A block and its results stay in a second-level cache of 1
# MiB; on a GPU it bounds the memory besides the gradients.
BLOCK = 2**16


@dataclass(frozen=True)
class Scales:
    """The factors that clip each unit's row, and the rows that contribute nothing.

    Attributes:
        factors: In grid steps, float32 [U]; 0 for a unit that contributes nothing.
        unusable: Which rows are not finite, bool [U]; None: no row.
    """

    factors: Tensor
    unusable: Tensor | None


class _Room:
    """Buffers that a call reuses, since new memory costs more than the arithmetic."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[Tensor] = []

    def __call__(self, number: int, *shape: int) -> Tensor:
        """The float32 buffer of this number, viewed with a shape; at most a block, or one
        column."""
        count = math.prod(shape)
        while len(self._buffers) <= number:
            self._buffers.append(torch.empty(0, dtype=torch.float32, device=self._device))
        if len(self._buffers[number]) < count:
            size = max(count, BLOCK)
            self._buffers[number] = torch.empty(size, dtype=torch.float32, device=self._device)
        return self._buffers[number][:count].view(shape)


def squares_of(gradients: Sequence[Gradient]) -> Tensor:
    """Squared norms of each unit's part in each gradient, float32 [U, gradients].

    Args:
        gradients: [U, …], of any floating types, or as factors; at least one.
    """
    units = len(gradients[0])
    found = torch.empty((units, len(gradients)), dtype=torch.float32, device=gradients[0].device)
    room = _Room(found.device)
    present, factors = _kinds(gradients)
    for place, product in factors.items():
        found[:, place] = _product_squares(product, room)
    for places, width in _alike(present):
        if len(places) * units * width <= BLOCK:
            block = room(0, len(places), units, width)
            for row, place in zip(block, places, strict=True):
                _square(present[place].reshape(units, width), row)
            sums = sum_in_halves(block.view(len(places) * units, width)).view(len(places), units)
            found[:, places] = sums.t()
        else:
            (place,) = places
            found[:, place] = _long_squares(present[place].reshape(units, width), room)
    return found


def _kinds(gradients: Sequence[Gradient]) -> tuple[dict[int, Tensor], dict[int, Products]]:
    """Gradients by place: whole ones, and those that are kept as factors."""
    places = dict(enumerate(gradients))
    factors = {place: g for place, g in places.items() if isinstance(g, Products)}
    return {p: g for p, g in places.items() if not isinstance(g, Products)}, factors


def _alike(gradients: Mapping[int, Tensor]) -> Iterator[tuple[list[int], int]]:
    """Places of gradients of one width, as many as fit into a block; a longer one alone."""
    by_width: dict[int, list[int]] = {}
    for place, gradient in gradients.items():
        by_width.setdefault(math.prod(gradient.shape[1:]), []).append(place)
    units = max((len(gradient) for gradient in gradients.values()), default=0) or 1
    for width, places in by_width.items():
        count = max(BLOCK // max(units * width, 1), 1)
        for start in range(0, len(places), count):
            yield places[start : start + count], width


def _square(rows: Tensor, room: Tensor) -> None:
    part = rows.to(torch.float32)
    torch.mul(part, part, out=room)


def _long_squares(rows: Tensor, room: _Room) -> Tensor:
    """Squared norms of rows [U, n] in float32, [U].

    Math:
        The same additions as `sum_in_halves` of the squares, computed block by block. After k
        turns of halving, columns a … b hold what they held after k − 1 turns plus what the columns
        one width further on held. A block is as wide as the result of the last turn.
    """
    units, widths = len(rows), [rows.shape[1]]
    while units * widths[-1] > BLOCK and widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)

    def halved(turns: int, start: int, stop: int, made: Tensor) -> None:
        if not turns:
            _square(rows[:, start:stop], made)
            return
        halved(turns - 1, start, stop, made)
        further, end = start + widths[turns], min(stop + widths[turns], widths[turns - 1])
        if further < end:
            beside = room(turns - 1, units, end - further)
            halved(turns - 1, further, end, beside)
            made[:, : end - further].add_(beside)

    left = room(len(widths) - 1, units, widths[-1])
    halved(len(widths) - 1, 0, widths[-1], left)
    return sum_in_halves(left)


def _product_squares(product: Products, room: _Room) -> Tensor:
    """Squared norms of each unit's part, [U]; a part is computed, squared and halved in the
    cache."""
    units, *shape = product.shape
    widths = [math.prod(shape)]
    while units * widths[-1] > BLOCK and widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    halves, made = room(0, units, widths[-1]), room(1, *shape)
    squares = made.view(-1)
    steps = [(squares[: wide - half], squares[half:wide]) for wide, half in pairwise(widths)]
    for row, (left, right) in zip(halves, product.factors(), strict=True):
        torch.mm(left, right, out=made)
        torch.mul(squares, squares, out=squares)
        for first, second in steps:
            first.add_(second)
        row.copy_(squares[: widths[-1]])
    return sum_in_halves(halves)


def sum_in_halves(rows: Tensor) -> Tensor:
    """Sums rows [U, n] to [U]: the second half is added to the first until one value is left.

    Elementwise, so that a row's sum has the same bits wherever it is computed. Overwrites `rows`.
    """
    width = rows.shape[1]
    if not width:
        return rows.new_zeros(len(rows))
    while width > 1:
        half = (width + 1) // 2
        rows[:, : width - half].add_(rows[:, half:width])
        width = half
    return rows[:, 0]


def scaled(gradient: Gradient, scales: Scales, room: Tensor | None = None) -> Tensor:
    """A gradient [U, …] in grid steps, rounded, float32; written to `room`, if that is given."""
    rows = whole(gradient)
    shape = (-1, *[1] * (rows.dim() - 1))
    steps = torch.mul(rows.to(torch.float32), scales.factors.view(shape), out=room)
    if scales.unusable is not None:
        steps.masked_fill_(scales.unusable.view(shape), 0.0)  # 0 · NaN would stay NaN
    return steps.round_()


def scaled_sums(gradients: Sequence[Gradient], scales: Scales) -> tuple[Tensor, ...]:
    """Sums over units of what `scaled` makes of each gradient, int64 […].

    Guarantees:
        The sums are exact: integers below 2⁵³, added in float64.
    """
    units, device = len(gradients[0]), gradients[0].device
    room = _Room(device)
    sums: dict[int, Tensor] = {}
    present, factors = _kinds(gradients)
    for place, product in factors.items():
        sums[place] = _product_sum(product, scales, room)
    for places, width in _alike(present):
        added = torch.empty((len(places), width), dtype=torch.int64, device=device)
        columns = width
        if len(places) * units * width > BLOCK:
            columns = max(BLOCK // units, 1)
        for start in range(0, width, max(columns, 1)):
            stop = min(start + columns, width)
            block = room(0, len(places), units, stop - start)
            for part, place in zip(block, places, strict=True):
                scaled(present[place].reshape(units, width)[:, start:stop], scales, part)
            added[:, start:stop] = block.sum(dim=1, dtype=torch.float64)
        for row, place in zip(added, places, strict=True):
            sums[place] = row.view(present[place].shape[1:])
    return tuple(sums[place] for place in range(len(gradients)))


def _product_sum(product: Products, scales: Scales, room: _Room) -> Tensor:
    """`scaled_sums` of factors: each unit's part is computed, scaled and added while it is in the
    cache."""
    _, *shape = product.shape
    total = torch.zeros(shape, dtype=torch.float64, device=product.device)
    made = room(0, *shape)
    left_out = [False] * len(product) if scales.unusable is None else scales.unusable.tolist()
    units = zip(product.factors(), scales.factors.unbind(), left_out, strict=True)
    for (left, right), factor, is_left_out in units:
        if not is_left_out:
            total.add_(torch.mm(left, right, out=made).mul_(factor).round_())
    return total.to(torch.int64)
