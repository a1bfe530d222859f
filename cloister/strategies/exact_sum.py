"""Weighted means of updates as they arrive: one running sum, whatever the number of sites.

    Σ w_k Δ_k / Σ w_k

Sums of floats depend on their order, and sites answer in any. So each w_k Δ_k, rounded once to
float64, is cut into whole multiples of 2^(32 j), and the multiples are added as 64-bit integers:
exact, and so the same in every order (long accumulators: Kulisch 2013, "Computer Arithmetic and
Validity", section 8.4). Updates of like size need two or three j.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter

# Bits of a piece. With 63 bits for a sum, 2³¹ sites fit before it could overflow.
BITS = 32
# What is below 2^(32 · -31) counts as zero: float64's normal numbers end at 2^-1022, those of an
# update, in float32, at 2^-149.
LOWEST = -31


class ExactSum:
    """The sum of arrays of one shape, exactly."""

    def __init__(self) -> None:
        self._pieces: dict[int, NDArray[np.int64]] = {}

    def add(self, array: NDArray[np.float64]) -> None:
        """Adds an array of finite values.

        Raises:
            ValueError: One is not finite.
        """
        if not np.isfinite(array).all():
            raise ValueError("a sum of what is not finite")
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
        """The sum, rounded to float64 from its largest pieces on; 0.0 where nothing was added."""
        levels = sorted(self._pieces, reverse=True)
        return sum((np.ldexp(self._pieces[j].astype(np.float64), BITS * j) for j in levels), 0.0)


class RunningMean:
    """The weighted mean of updates, one at a time.

    Args:
        weights: By site; a site without one weighs 1.

    Guarantees:
        Any order of sites gives the same bits, and so does any moment at which it is read. Memory
        does not grow with the number of sites.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._like: Adapter | None = None
        self._sums: dict[str, ExactSum] = {}
        self._total = ExactSum()

    def add(self, site: str, update: Adapter) -> None:
        """Adds a site's update.

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
            ValueError: Nothing came.
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
