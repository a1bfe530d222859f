"""Finds the pairs of tensors in an adapter that are the two factors of one product.

    W = W₀ + s (B A + B' A')        s = alpha / r, the same for both products

B [outputs, r] and A [r, inputs] train. B' and A' are the residual, which some studies have: the
part of the mean product that the averaged factors cannot hold, with a rank of its own. Sites
receive it and never train it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from cloister.adapter.tensors import Adapter

Shape = tuple[int, ...]

# Endings of the names of B and A.
_ENDINGS = ((".lora_B.weight", ".lora_A.weight"), ("head.up.weight", "head.down.weight"))


class Pair(NamedTuple):
    """The names of one product's factors.

    Attributes:
        left: B, [outputs, rank].
        right: A, [rank, inputs].
    """

    left: str
    right: str

    @property
    def residual(self) -> Pair:
        """The names of the residual's factors beside this pair."""
        return Pair(*(f"{name.removesuffix('.weight')}.residual.weight" for name in self))


def find_pairs(names: Iterable[str]) -> tuple[Pair, ...]:
    """Returns the pairs that the names belong to, in order of names; residuals are left out."""
    found = set()
    for name in names:
        for endings in _ENDINGS:
            for ending in endings:
                if name.endswith(ending):
                    stem = name.removesuffix(ending)
                    found.add(Pair(stem + endings[0], stem + endings[1]))
    return tuple(sorted(found))


def cut_shapes(shapes: Mapping[str, Shape], rank: int | None) -> dict[str, Shape]:
    """Returns the shapes after pairs were cut to a rank (None: not cut); residuals keep theirs."""
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
    """Returns the first `rank` columns of each B and rows of each A; None: the whole adapter."""
    shapes = cut_shapes(adapter.shapes, rank)
    return Adapter({name: array[_corner(shapes[name])] for name, array in adapter.items()})


def filled(adapter: Adapter, shapes: Mapping[str, Shape]) -> Adapter:
    """Fills a smaller adapter up with zeros to the given shapes, after its columns and rows."""
    whole = {}
    for name, array in adapter.items():
        whole[name] = np.zeros(shapes[name], np.float32)
        whole[name][_corner(array.shape)] = array
    return Adapter(whole)


def _corner(shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)
