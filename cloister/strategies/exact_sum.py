"""Computes weighted means of updates as they arrive, with one running sum for all sites.

    Σ w_k Δ_k / Σ w_k

A sum of floats depends on the order, and sites answer in any order. So the sum is a whole number of
many bits, in which adding is exact and every order gives the same bits (long accumulators: Kulisch
2013, "Computer Arithmetic and Validity", section 8.4). Its highest bits are a 64-bit integer, and
32 bits at a time follow where an update has any. Updates of like size need 32 of them, so that a
sum takes 12 bytes a value: three times an update in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.tensors import Adapter

# Bits of a value that the highest integer takes at most. With 63 for a sum, 2²⁰ sites fit.
HIGH, MOST_ADDED = 43, 2**20
# Its unit is 2 to a multiple of this, by the largest value so far: so it does not depend on the
# order, and at least 43 - 16 bits of the largest value are above it.
STEP = 16
# Bits of each further part of the number.
BITS, MASK = 32, 2**32 - 1
# Bits below 2^-960, and some of the 32 above, count as zero: no float32 value (2^-149 or more)
# times a weight that a recipe may have (10^-6 to 10^6) has any, and 2^960 is still a float64.
LOWEST = -960
# Values whose sums are kept and cut together: 256 kB in float64, so that a core's cache holds some
# such arrays. Parts four times as large took 1.0 to 1.2 times the CPU time.
PART = 2**15
# Veltkamp's constant (Dekker 1971, "A floating-point technique for extending the available
# precision", section 5) that leaves 24 of 53 bits: those of a float32.
SPLIT = 2.0**29 + 1

Values = TypeVar("Values", float, NDArray[np.float64])


class _PartSum:
    """The exact sums of up to `PART` values, as whole numbers of units of 2^`unit`.

    Attributes:
        unit: The exponent of the highest integers' unit, a multiple of `STEP`.
        high: The highest integers, [values] int64.
        low: The bits below, 32 at a time, each [values] uint32.
    """

    def __init__(self, values: int) -> None:
        self.unit = LOWEST
        self.high = np.zeros(values, np.int64)
        self.low: list[NDArray[np.uint32]] = []

    def add(self, values: NDArray[np.float64], largest: float) -> None:
        """Adds finite values exactly.

        Args:
            values: The values, [values]; they are overwritten.
            largest: The largest of their absolute values.
        """
        if not largest:
            return
        needed = STEP * math.ceil((math.frexp(largest)[1] - HIGH) / STEP)
        if needed > self.unit:
            self._raise_unit(needed)
        values *= 2.0**-self.unit
        pieces = [_cut(values)]
        while self.unit - BITS * len(pieces) >= LOWEST and values.any():
            values *= 2.0**BITS
            pieces.append(_cut(values))
        while len(self.low) < len(pieces) - 1:
            self.low.append(np.zeros(self.high.size, np.uint32))
        for index in reversed(range(len(pieces) - 1)):  # what is more than 32 bits goes up
            total = pieces[index + 1]
            total += self.low[index]
            self.low[index][:] = total & MASK
            total >>= BITS
            pieces[index] += total
        self.high += pieces[0]

    def _raise_unit(self, unit: int) -> None:
        """Counts in a larger unit; no bit is lost."""
        if self.high.any() or self.low:
            left = unit - self.unit
            while left >= BITS:
                self.low.insert(0, (self.high & MASK).astype(np.uint32))
                self.high >>= BITS
                left -= BITS
            if left:
                self._shift()
        self.unit = unit

    def _shift(self) -> None:
        """Moves all bits down by `STEP`, which is half of a further part."""
        over = (self.high & (2**STEP - 1)).astype(np.uint32)
        self.high >>= STEP
        for part in self.low:
            part[:], over = (part >> STEP) | (over << STEP), part & (2**STEP - 1)
        if over.any():
            self.low.append(over << STEP)

    def value(self) -> NDArray[np.float64]:
        """The sums in float64: exact up to 53 bits, else rounded once for each part."""
        # By their absolute values, whose highest bits are zero where the value is small.
        negative = self.high < 0
        below = negative.astype(np.float64)  # -n is ~n + 1, in the lowest unit
        for part in reversed(self.low):
            below = (below + np.where(negative, ~part, part)) * 2.0**-BITS
        found = (np.where(negative, ~self.high, self.high) + below) * 2.0**self.unit
        return np.where(negative, -found, found)


def _cut(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the whole numbers in values, towards zero, and leaves the rest."""
    whole = np.trunc(values)
    values -= whole
    return whole.astype(np.int64)


class ExactSum:
    """The exact sum of arrays of one shape, a part of the values at a time."""

    def __init__(self) -> None:
        self._parts: list[_PartSum] = []
        self._shape: tuple[int, ...] = ()
        self._added = 0

    def add(self, array: NDArray[np.floating], weight: float = 1.0) -> None:
        """Adds an array of finite values, each times the weight.

        Products with a weight other than 1 are rounded to 24 bits, as the values are float32.

        Raises:
            ValueError: A value or product is not finite, or more than 2²⁰ arrays are added.
        """
        flat = array.reshape(-1)
        most = [_largest(flat[place], weight) for place in _places(flat.size)]
        if not all(map(math.isfinite, most)):
            raise ValueError("values to add must be finite")
        if self._added == MOST_ADDED:
            raise ValueError(f"more than {MOST_ADDED:,} arrays to add")
        if not self._added:
            self._shape = array.shape
            self._parts = [_PartSum(flat[place].size) for place in _places(flat.size)]
        self._added += 1
        for part, place, largest in zip(self._parts, _places(flat.size), most, strict=True):
            part.add(_product(flat[place].astype(np.float64), weight), largest)

    def value(self) -> NDArray[np.float64] | float:
        """The sum in float64; 0.0 if nothing was added."""
        if not self._added:
            return 0.0
        found = np.empty(self._shape)
        for part, place in zip(self._parts, _places(found.size), strict=True):
            found.reshape(-1)[place] = part.value()
        return found

    def take(self, total: float) -> NDArray[np.float32]:
        """Returns the sum over a number, in float32; afterwards the sum is empty.

        Each part is freed as its quotient is there, so that both together take no more memory than
        the sum.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._added:
            raise ValueError("nothing was added")
        self._parts.reverse()
        quotients = [
            (self._parts.pop().value() / total).astype(np.float32) for _ in range(len(self._parts))
        ]
        found = np.empty(self._shape, np.float32)
        for quotient, place in zip(quotients, _places(found.size), strict=True):
            found.reshape(-1)[place] = quotient
        found.setflags(write=False)  # so that an adapter takes it without a copy
        self._added = 0
        return found


def _places(size: int) -> list[slice]:
    return [slice(start, start + PART) for start in range(0, size, PART)]


def _largest(values: NDArray[np.floating], weight: float) -> float:
    """The largest absolute value of the products with a weight; not finite where one is not."""
    return _product(max(float(values.max()), -float(values.min())), weight)


def _product(values: Values, weight: float) -> Values:
    """Returns products with a weight; an array is overwritten.

    They are rounded to 24 bits at any exponent, where a float32 could overflow or lose bits.
    """
    if weight != 1.0:
        values *= weight
        much = values * SPLIT
        values -= much
        values += much
    return values


class RunningMean:
    """The weighted mean of updates, one at a time.

    Args:
        weights: By site; a site without one weighs 1.

    Guarantees:
        Any order of sites gives the same bits. Memory does not grow with the number of sites: it is
        three times an update, and where values of a tensor differ by more than 2³⁵ or so, 4 bytes a
        value more for each 2³² of this. Beside it, each tensor takes up to 1 kB.
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

    def take(self) -> Adapter:
        """Returns the weighted mean of the updates added so far; afterwards there are none.

        Raises:
            ValueError: No update was added.
        """
        if self._shapes is None:
            raise ValueError("no update to aggregate")
        total = float(self._total.value())
        mean = Adapter({name: self._sums.pop(name).take(total) for name in self._shapes})
        self._shapes, self._total = None, ExactSum()
        return mean
