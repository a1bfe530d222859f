"""Computes weighted means of updates as they arrive, with one running sum for all sites.

    Σ w_k Δ_k / Σ w_k

A sum of floats depends on the order, and sites answer in any order. So each w_k Δ_k, rounded once
to float64, is cut into whole multiples of 2^(32 j), and the multiples are added as 64-bit integers:
this is exact, so every order gives the same bits (long accumulators: Kulisch 2013, "Computer
Arithmetic and Validity", section 8.4). Updates of like size need two or three j.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter

# Bits of a piece. With 63 bits for a sum, 2³¹ sites fit before it could overflow.
BITS = 32
# Values below 2^(32 · -31) count as zero: the smallest normal float64 is 2^-1022, and the smallest
# value of an update, in float32, is 2^-149.
LOWEST = -31
# Values that are cut together: 1 MB in float64, which a core's cache holds. Parts of 8 MB took 1.2
# to 2.2 times the CPU time.
PART = 2**17


class ExactSum:
    """The exact sum of arrays of one shape."""

    def __init__(self) -> None:
        self._pieces: dict[int, NDArray[np.int64]] = {}

    def add(self, array: NDArray[np.floating], weight: float = 1.0) -> None:
        """Adds an array of finite values, each times the weight and rounded once to float64.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(array).all():
            raise ValueError("values to add must be finite")
        flat = array.reshape(-1)
        # In parts, so that temporary arrays stay small beside the sum.
        for start in range(0, flat.size, PART):
            place = slice(start, start + PART)
            self._add_part(place, flat[place].astype(np.float64) * weight, array.shape)

    def _add_part(self, place: slice, rest: NDArray[np.float64], shape: tuple[int, ...]) -> None:
        while largest := max(float(rest.max()), -float(rest.min())):
            level = int(np.frexp(largest)[1] - 1) // BITS
            if level < LOWEST:
                return
            unit = np.ldexp(1.0, BITS * level)
            piece = np.trunc(rest / unit)
            rest = rest - piece * unit
            if level not in self._pieces:
                self._pieces[level] = np.zeros(shape, np.int64)
            self._pieces[level].reshape(-1)[place] += piece.astype(np.int64)

    def value(self) -> NDArray[np.float64] | float:
        """The sum in float64, added from the largest pieces down; 0.0 if nothing was added."""
        if not self._pieces:
            return 0.0
        shape = next(iter(self._pieces.values())).shape
        return self._value(slice(None)).reshape(shape)

    def divided(self, total: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the sum over a number, in float32 of the given shape."""
        found = np.zeros(shape, np.float32)
        flat = found.reshape(-1)
        for start in range(0, flat.size if self._pieces else 0, PART):
            place = slice(start, start + PART)
            flat[place] = self._value(place) / total
        found.setflags(write=False)  # so that an adapter takes it without a copy
        return found

    def _value(self, place: slice) -> NDArray[np.float64]:
        levels = sorted(self._pieces, reverse=True)
        total = np.zeros(())
        for level in levels:
            part = self._pieces[level].reshape(-1)[place].astype(np.float64)
            total = total + np.ldexp(part, BITS * level)
        return total


class RunningMean:
    """The weighted mean of updates, one at a time.

    Args:
        weights: By site; a site without one weighs 1.

    Guarantees:
        Any order of sites gives the same bits. Reading the mean does not change later results.
        Memory does not grow with the number of sites.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._sums: dict[str, ExactSum] = {}
        self._total = ExactSum()

    def add(self, site: str, update: Adapter) -> None:
        """Adds one site's update, times its weight, to the sum.

        Raises:
            ValueError: Its names or shapes are not those of the others.
        """
        if self._shapes is None:
            self._shapes = update.shapes
            self._sums = {name: ExactSum() for name in update}
        update.check_shapes(self._shapes)
        weight = self._weights.get(site, 1.0)
        self._total.add(np.array(weight))
        for name, array in update.items():
            self._sums[name].add(array, weight)

    def mean(self) -> Adapter:
        """Returns the weighted mean of the updates added so far.

        Raises:
            ValueError: No update was added.
        """
        if self._shapes is None:
            raise ValueError("no update to aggregate")
        total = float(self._total.value())
        shapes = self._shapes.items()
        return Adapter({name: self._sums[name].divided(total, shape) for name, shape in shapes})
