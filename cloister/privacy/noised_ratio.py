"""Confidence intervals of a ratio of two noised sums, by Fieller's theorem.

Math:
    Let s be the vector of exact sums, y = s + Z with independent noise of known variances v, and
    θ = a·s / b·s for fixed vectors a and b. For the true θ, a·y − θ b·y is normal with mean 0 and
    variance Σ (a − θb)² v. So the values of θ with

        (a·y − θ b·y)² ≤ z² (Σ (a − θb)² v + V(θ))

    are a confidence set (Fieller 1954, J. R. Stat. Soc. B 16, 175): a quadratic inequality in θ, in
    which the noise of the denominator counts, too. V = 0: the set covers the ratio of the held-out
    units. For a mean of values from 0 to 1 over units, V(θ) = n θ(1 − θ) covers the mean of the
    population from which the units were drawn, since no such variable has a larger variance; with
    noise 0 it is Wilson's interval (Wilson 1927). n is estimated by b·y.

    The noise is discrete Gaussian on a grid 2³⁰ times finer than its bound, summed over sites,
    which cannot be told from the normal distribution here. Where the set is no interval, because
    the noised denominator cannot be told from 0, nothing is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Ratio:
    """A score as a ratio of two linear functions of a sum.

    Attributes:
        above: a, weights of the numerator.
        below: b, weights of the denominator.
        low: The smallest value that the ratio can have.
        high: The largest value.
        is_share: Whether it is a mean over units of values from 0 to 1, so that the population's
            mean has an interval, too.
        is_log: Whether the score is the exponential of the ratio.
    """

    above: Floats
    below: Floats
    low: float = 0.0
    high: float = math.inf
    is_share: bool = False
    is_log: bool = False


@dataclass(frozen=True)
class Estimate:
    """An estimated ratio with intervals at `LEVEL`.

    Attributes:
        value: The ratio of the noised sums (or its exponential), kept within the possible values;
            None: the noise hides the denominator.
        held_out: Interval for the ratio of the held-out units.
        population: Interval for the mean of the population that they are drawn from; None: the
            ratio is no mean over units of values from 0 to 1.
    """

    value: float | None
    held_out: tuple[float, float]
    population: tuple[float, float] | None

    @property
    def widest(self) -> tuple[float, float]:
        """The interval that covers most: of the population where it is known."""
        return self.held_out if self.population is None else self.population

    @property
    def covers(self) -> str:
        """What `widest` covers, in words."""
        return "the held-out units" if self.population is None else "the population"


def estimate(ratio: Ratio, noised: Floats, variances: Floats) -> Estimate:
    """Estimates a ratio of sums from the noised sums.

    Args:
        ratio: The ratio.
        noised: y, the noised sums.
        variances: v, the variance of the noise of each.
    """
    above, below = float(ratio.above @ noised), float(ratio.below @ noised)
    held_out = _interval(ratio, above, below, variances, 0.0)
    population = None
    if ratio.is_share:
        population = _interval(ratio, above, below, variances, max(below, 0.0))
    noise = math.sqrt(float(ratio.below**2 @ variances))
    value = None
    if below > _Z * noise and below > 0:
        value = min(max(above / below, ratio.low), ratio.high)
    if ratio.is_log:
        low, high = held_out
        return Estimate(None if value is None else _exp(value), (_exp(low), _exp(high)), None)
    return Estimate(value, held_out, population)


def _exp(value: float) -> float:
    return float(np.exp(np.float64(min(value, 700.0)))) if value < math.inf else math.inf


def _interval(
    ratio: Ratio, above: float, below: float, variances: Floats, units: float
) -> tuple[float, float]:
    """Solves the quadratic inequality; all possible values where it bounds nothing."""
    a, b, square = ratio.above, ratio.below, _Z**2
    # (A − θB)² ≤ z² (Σ(a − θb)² v + n θ(1 − θ))  as  p θ² − 2 q θ + r ≤ 0
    p = below**2 - square * (float(b**2 @ variances) - units)
    q = above * below - square * (float((a * b) @ variances) - units / 2)
    r = above**2 - square * float(a**2 @ variances)
    root = q**2 - p * r
    if not p > 0 or root < 0 or not below > 0:
        return ratio.low, ratio.high
    low, high = (q - math.sqrt(root)) / p, (q + math.sqrt(root)) / p
    return (
        min(max(low, ratio.low), ratio.high),
        min(max(high, ratio.low), ratio.high),
    )
