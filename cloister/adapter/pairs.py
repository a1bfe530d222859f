"""Which tensors of an adapter are the two factors of one product.

    W = W₀ + s (B A + B' A')        s = alpha / r, the same for both products

B [outputs, r] and A [r, inputs] train; B' and A', where a study has them, are the residual: what
averaging factors left over, at a rank of its own. It travels down and never trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from cloister.adapter.tensors import Adapter

Shape = tuple[int, ...]

# How B and A of one product are called, as the names end.
_ENDINGS = ((".lora_B.weight", ".lora_A.weight"), ("head.up.weight", "head.down.weight"))


class Pair(NamedTuple):
    """Names of one product's factors.

    Attributes:
        left: B, [outputs, rank].
        right: A, [rank, inputs].
    """

    left: str
    right: str

    @property
    def residual(self) -> Pair:
        """Names of the residual's factors beside this pair."""
        return Pair(*(f"{name.removesuffix('.weight')}.residual.weight" for name in self))


def find_pairs(names: Iterable[str]) -> tuple[Pair, ...]:
    """Every pair that one of the names is a factor of, in name order; residuals are none."""
    found = set()
    for name in names:
        for endings in _ENDINGS:
            for ending in endings:
                if name.endswith(ending):
                    stem = name.removesuffix(ending)
                    found.add(Pair(stem + endings[0], stem + endings[1]))
    return tuple(sorted(found))


def cut_shapes(shapes: Mapping[str, Shape], rank: int | None) -> dict[str, Shape]:
    """Shapes once pairs are of at most a rank; None: as they are. Residuals stay."""
    cut = dict(shapes)
    if rank is None:
        return cut
    for left, right in find_pairs(shapes):
        if left in cut:
            cut[left] = (cut[left][0], min(cut[left][1], rank))
        if right in cut:
            cut[right] = (min(cut[right][0], rank), cut[right][1])
    return cut


def cut(adapter: Adapter, rank: int | None) -> Adapter:
    """The first `rank` columns of each B and rows of each A; None: everything."""
    shapes = cut_shapes(adapter.shapes, rank)
    return Adapter({name: array[_corner(shapes[name])] for name, array in adapter.items()})


def filled(adapter: Adapter, shapes: Mapping[str, Shape]) -> Adapter:
    """Zeros of the shapes with the adapter in their first columns and rows."""
    whole = {}
    for name, array in adapter.items():
        whole[name] = np.zeros(shapes[name], np.float32)
        whole[name][_corner(array.shape)] = array
    return Adapter(whole)


def _corner(shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)
