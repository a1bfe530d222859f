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


class ExactSum:
    """The exact sum of arrays of one shape."""

    def __init__(self) -> None:
        self._pieces: dict[int, NDArray[np.int64]] = {}

    def add(self, array: NDArray[np.float64]) -> None:
        """Adds an array of finite values.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(array).all():
            raise ValueError("values to add must be finite")
        rest = array
        while largest := float(np.abs(rest).max(initial=0.0)):
            level = int(np.frexp(largest)[1] - 1) // BITS
            if level < LOWEST:
                return
            unit = np.ldexp(1.0, BITS * level)
            piece = np.trunc(rest / unit)
            rest = rest - piece * unit
            whole = piece.astype(np.int64)
            kept = self._pieces.get(level)
            self._pieces[level] = whole if kept is None else kept + whole

    def value(self) -> NDArray[np.float64] | float:
        """The sum in float64, added from the largest pieces down; 0.0 if nothing was added."""
        levels = sorted(self._pieces, reverse=True)
        return sum((np.ldexp(self._pieces[j].astype(np.float64), BITS * j) for j in levels), 0.0)


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
        self._like: Adapter | None = None
        self._sums: dict[str, ExactSum] = {}
        self._total = ExactSum()

    def add(self, site: str, update: Adapter) -> None:
        """Adds one site's update, times its weight, to the sum.

        Raises:
            ValueError: Its names or shapes are not those of the others.
        """
        if self._like is None:
            self._like = update.zeros()
            self._sums = {name: ExactSum() for name in update}
        self._like + update  # raises where the shapes differ
        weight = self._weights.get(site, 1.0)
        self._total.add(np.array(weight))
        for name, array in update.items():
            self._sums[name].add(array.astype(np.float64) * weight)

    def mean(self) -> Adapter:
        """Returns the weighted mean of the updates added so far.

        Raises:
            ValueError: No update was added.
        """
        if self._like is None:
            raise ValueError("no update to aggregate")
        total = self._total.value()
        return Adapter(
            {
                name: zero + np.asarray(self._sums[name].value() / total)
                for name, zero in self._like.items()
            }
        )
