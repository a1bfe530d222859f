"""Noise that the sites of a secure sum share: its size, its grid, and what it costs.

Math:
    Each site adds a discrete Gaussian of deviation s = σ C / (γ √h) in steps of the grid γ, h the
    fewest honest sites of a sum. The noise of h of them is a discrete Gaussian of deviation σ C / γ
    up to a factor exp(±τ), τ = 10 Σ_{k<h} exp(−2π² s² k / (k + 1)) a coordinate (Kairouz, Liu,
    Steinke 2021, arXiv:2102.06387, theorem 3): 0 in float64 from s = 32 on. Each unit's gradient
    is rounded to the grid before the sum and stays within C, so the sum has sensitivity C.

    At integer orders α the Rényi divergence of a Poisson-subsampled mechanism is a sum of positive
    terms in E[(P/Q)^k], k ≤ α (Mironov, Talwar, Zhang 2019, arXiv:1908.10530, section 3.3), and
    each is at most the continuous Gaussian's, exp(k (k − 1) / 2σ²) (Canonne, Kamath, Steinke 2020,
    theorem 4); the mirror n → v − n swaps P and Q, so one direction is enough (the same, theorem
    5). So ε at integer orders is a bound for what is drawn, rounding included; PLD, which holds
    for the continuous Gaussian, is not used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloister.errors import RefusedError
from cloister.privacy.events import GaussianEvent
from cloister.privacy.renyi import rdp_epsilon
from cloister.privacy.secagg.discrete_noise import SMALLEST
from cloister.privacy.secagg.terms import Terms

# Orders of the bound: beyond 256 none was best for an ε from 0.05 up.
ORDERS = tuple(float(order) for order in (*range(2, 65), *range(68, 257, 4)))
# Deviations of the whole noise that fit beside the signal: a normal is beyond 8 once in 10¹⁵.
NOISE_ROOM = 8.0
# How much of K · expected batch · C a coordinate of the sum may reach before it wraps, by bits. At
# 32 bits four times it: batches four times as large as expected, every gradient along one axis. At
# 16 a sixty-fourth: gradients of 10⁴ values and more that do not lie along one axis. What wraps is
# wrong, and no less private.
SIGNAL_ROOM = {32: 4.0, 16: 1 / 64}
# Rounding to the grid lowers the norm to which units are clipped by √d γ / 2: at most this part.
MOST_LENGTHENING = 0.25


@dataclass(frozen=True)
class SharedNoise:
    """A round's noise, from public constants alone.

    Attributes:
        bound: C, the norm of one unit's gradient.
        noise_multiplier: σ, of the sum of the fewest honest sites over C.
        share: s, each site's deviation in steps of the grid.
        grid: γ, what one step stands for; a power of two.
    """

    bound: float
    noise_multiplier: float
    share: float
    grid: float


def shared_noise(
    terms: Terms, *, bound: float, noise_multiplier: float, expected_batch_size: int, values: int
) -> SharedNoise:
    """The finest grid on which a sum fits.

    Args:
        terms: The epoch's: how many sites, how many honest, how many bits.
        bound: C.
        noise_multiplier: σ that the sum must have.
        expected_batch_size: Of a site.
        values: d, of an update.

    Raises:
        RefusedError: So few bits leave no room: rounding would take more than a quarter of the
            bound, or the noise is too coarse to be drawn.
    """
    sites = len(terms.sites)
    signal = SIGNAL_ROOM[terms.bits] * sites * expected_batch_size
    noise = NOISE_ROOM * noise_multiplier * math.sqrt(sites / terms.honest)
    # The least power of two at which signal and noise stay below 2^(bits − 1) steps.
    finest = math.ceil(math.log2((signal + noise) * bound)) - (terms.bits - 1)
    grid = 2.0**finest
    share = terms.share_of(noise_multiplier) * bound / grid
    lengthening = math.sqrt(values) * grid / 2 / bound
    if lengthening > MOST_LENGTHENING or share < SMALLEST:
        raise RefusedError(
            f"secure aggregation with {terms.bits} bits a value: {sites} sites, {values} values "
            f"and noise {noise_multiplier:g} leave a grid of {grid / bound:.2g} of the bound, too "
            "coarse; use 32 bits, or fewer trained parameters"
        )
    return SharedNoise(bound, noise_multiplier, share, grid)


def shared_epsilon(event: GaussianEvent, delta: float) -> float:
    """ε of a sum with shared noise against who sees only sums; ∞ where nothing is private.

    Args:
        event: Its noise multiplier is that of the sum's noise, by the fewest honest sites.
        delta: δ.
    """
    if not event.is_private or event.noise_multiplier <= 0:
        return math.inf
    composition = ((event.noise_multiplier, event.sample_rate, event.steps),)
    return rdp_epsilon(composition, delta, ORDERS)


def sum_excess(share: float, sites: int) -> float:
    """τ: by how much the logarithm of a sum's probabilities differs from a discrete Gaussian's."""
    return 10 * math.fsum(
        math.exp(-2 * math.pi**2 * share**2 * k / (k + 1)) for k in range(1, sites)
    )
