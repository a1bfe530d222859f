"""Draws discrete Gaussians exactly, mostly with one random word for each.

    P(k) ∝ exp(−k² / 2 s²)        k integer, s in steps of the grid

Most draws come from a table, the rest by rejection (Marsaglia 1963, "Generating discrete random
variables in a computer", here with cells of integers). The integers are cut into cells of H
integers, where H is a power of two and at most s / 64. Of the table's 2¹⁶ equally likely entries,
cell j gets c_j: the largest number that gives no integer of the cell more than its probability,

    c_j / 2¹⁶ H ≤ P(k) for every k of the cell.

One word of 64 bits gives an entry and a place in its cell. The entries that no cell got, about 1 %,
have the remaining probability P(k) − c_j / 2¹⁶ H. It is drawn by rejection, with the constant bound
W_j / 2³² H in each cell.

Math:
    Entries, weights and places are integers, drawn without error. Whether a proposal is kept is
    decided in float64, whose relative error here is below 450 · 2⁻⁵³ (five roundings of k² / 2 s²,
    which is at most 85; 4 units in the last place of numpy's exp; the scale's). If the two sides
    are closer than `CLOSE`, or than two steps of a float64 uniform (always so beyond 9 deviations),
    the decision is made in decimals of 80 digits, against a uniform of 245 bits: about once in 10¹¹
    proposals. So the error of P(k) is at most 2⁻²⁴⁵ and 10⁻⁷⁰ of itself. Draws end at `REACH`
    deviations, beyond which the probability is less than 10⁻³⁷. 10⁴ releases of 10⁸ values are
    within 10⁻²⁴ of their exact distribution in total variation, which adds at most that to δ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

# Entries of the table; 2¹⁶ of 8 bytes lie in a core's second cache.
ENTRY_BITS = 16
# Fineness of the rejection's weights: cells beyond 6 deviations get one each, 10⁻⁷ of all.
WEIGHT_BITS = 32
# Cells in a deviation, at least: what the table leaves over is 0.4 of a cell, and rounding.
CELLS = 64
# The largest draw, in deviations. A unit moves a sum by at most 5 deviations at the smallest noise
# multiplier allowed (0.2); beyond the other 8 lies 6·10⁻¹⁶.
REACH = 13.0
# At this deviation a place in a cell has 47 of a word's 48 bits.
LARGEST = 2.0**52
# Relative distance of the two sides below which float64 does not decide: twice its error, see
# above.
CLOSE = 2.0**-43
# Further bits that decide then, in addition to the 53 of a float64 uniform.
MORE_BITS = 192
# From this deviation on Σ exp(−k²/2s²) is s √2π up to 10⁻¹³⁶ (Poisson's summation formula); below
# it these terms are all that there is, up to 10⁻¹³².
SMALL, SUMMED = 4.0, range(-99, 100)
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899863"
)
# Values that are looked up together: words, places and values of so many lie in the second cache.
BLOCK = 2**15


class DiscreteGaussian:
    """The distribution of one deviation, as a table.

    Args:
        deviation: s, in steps of the grid; above 0 and below `LARGEST`.

    Attributes:
        width: H, integers of a cell.
        cells: j, the cells in use, ascending.
        counts: c_j, each cell's entries.
        weights: W_j, each cell's weight in the rejection.
    """

    def __init__(self, deviation: float) -> None:
        if not 0 < deviation < LARGEST:
            raise ValueError(f"a deviation of {deviation}; above 0 and below {LARGEST:g}")
        self.deviation = deviation
        self._bits = max(math.floor(math.log2(deviation / CELLS)), 0)
        self.width = 2**self._bits
        reach = math.ceil(REACH * deviation / self.width) + 2
        self.cells = np.arange(-reach, reach, dtype=np.int64)
        total = math.sqrt(2 * math.pi) * deviation
        if deviation < SMALL:
            total = math.fsum(math.exp(-((k / deviation) ** 2) / 2) for k in SUMMED)
        self._scale = 2.0**WEIGHT_BITS * self.width / total
        first, last = self.cells * self.width, (self.cells + 1) * self.width - 1
        near = np.where(self.cells >= 0, first, last)
        far = np.where(self.cells >= 0, last, first)
        ratio = 2 ** (WEIGHT_BITS - ENTRY_BITS)
        # Lower and upper bounds: a billionth below and above the float64 value covers its rounding.
        self.counts = np.floor(self.heights(far) * (1 - 2.0**-30) / ratio).astype(np.int64)
        self.weights = np.floor(self.heights(near)).astype(np.int64) + 2 - self.counts * ratio
        self._starts = np.zeros(2**ENTRY_BITS, dtype=np.int64)
        self._entries: int = int(self.counts.sum())
        self._starts[: self._entries] = np.repeat(first, self.counts)
        self._ends = np.cumsum(self.weights)
        # One more cell, whose values are always rejected, fills the weights up to a power of two.
        self._rest_starts = np.append(first, first[-1])
        self._rest_weights = np.append(self.weights, 1)
        self._rest_covered = np.append(self.counts * ratio, 2 ** (WEIGHT_BITS + 1))
        self._weight_bits = int(self._ends[-1]).bit_length()
        self._kept = self.left_over * 2.0 ** (WEIGHT_BITS - self._weight_bits)

    def heights(self, values: Integers) -> NDArray[np.float64]:
        """2³² H P(k) of each value: the weight of its cell if all of its values were equally
        likely."""
        heights: NDArray[np.float64] = self._scale * np.exp(-((values / self.deviation) ** 2) / 2)
        return heights

    @property
    def left_over(self) -> float:
        """The part of all draws that the table leaves to the rejection."""
        return float(1 - self._entries / 2**ENTRY_BITS)

    def draw(self, count: int, words: Callable[[int], Words]) -> Integers:
        """Independent draws, int64 [count].

        Args:
            count: How many.
            words: Returns this number of independent uniform words, which nothing else uses; they
                are overwritten.
        """
        drawn = np.empty(count, dtype=np.int64)
        rest: list[Integers] = []
        mask, limit = np.uint64(self.width - 1), np.uint64(self._entries << (64 - ENTRY_BITS))
        for start in range(0, count, BLOCK):
            part = drawn[start : start + BLOCK]
            word = words(len(part))
            rest.append(np.flatnonzero(word >= limit) + start)
            entry = (word >> np.uint64(64 - ENTRY_BITS)).view(np.int64)
            np.take(self._starts, entry, out=part, mode="clip")
            word &= mask
            part += word.view(np.int64)
        if rest:
            places = np.concatenate(rest)
            drawn[places] = self._rest(len(places), words)
        return drawn

    def _rest(self, count: int, words: Callable[[int], Words]) -> Integers:
        """Draws from the probability that the table leaves over, by rejection, int64 [count]."""
        kept = [np.zeros(0, dtype=np.int64)]
        missing = count
        while missing:
            # A tenth more proposals than needed on average, plus 64: one turn usually suffices.
            tries = math.ceil(1.1 * missing / self._kept) + 64
            which, place, height = words(3 * tries).reshape(3, -1)
            which >>= np.uint64(64 - self._weight_bits)
            cell = np.searchsorted(self._ends, which.view(np.int64), side="right")
            place &= np.uint64(self.width - 1)
            value = self._rest_starts[cell] + place.view(np.int64)
            height >>= np.uint64(11)
            step, heights = self._rest_weights[cell] / 2.0**53, self.heights(value)
            side, room = height * step, heights - self._rest_covered[cell]
            accepted = side < room
            for at in np.flatnonzero(np.abs(side - room) <= CLOSE * (side + heights) + 2 * step):
                fine = int.from_bytes(words(MORE_BITS // 64).tobytes())
                uniform = (int(height[at]) << MORE_BITS) + fine
                accepted[at] = self._keeps(int(value[at]), int(cell[at]), uniform)
            kept.append(value[accepted][:missing])
            missing -= len(kept[-1])
        return np.concatenate(kept)

    def _keeps(self, value: int, cell: int, uniform: int) -> bool:
        """Whether a proposal is kept, in decimals; the uniform is of 53 + `MORE_BITS` bits."""
        with localcontext(prec=80):
            twice = 2 * Decimal(self.deviation) ** 2
            total = (PI * twice).sqrt()
            if self.deviation < SMALL:
                total = sum(((-(k**2) / twice).exp() for k in SUMMED), Decimal(0))
            height = 2**WEIGHT_BITS * self.width * (-(value**2) / twice).exp() / total
            room = (height - int(self._rest_covered[cell])) * 2 ** (53 + MORE_BITS)
            return bool(uniform * int(self._rest_weights[cell]) < room)


@lru_cache(maxsize=16)
def table_of(deviation: float) -> DiscreteGaussian:
    """Returns the table of a deviation, kept for later draws; a plan has one or two deviations."""
    return DiscreteGaussian(deviation)
