"""Computes the noise that the sites of a secure sum share, and proves what it costs.

Math:
    Each site adds a discrete Gaussian of deviation s, in steps of the grid γ, to its sum of units'
    gradients, each rounded to the grid and of norm at most C. The noise of h of them is a discrete
    Gaussian of variance h s² up to a factor exp(±τ) a coordinate, τ = 10 Σ_{k<h}
    exp(−2π² s² k / (k + 1)) (Kairouz, Liu, Steinke 2021, arXiv:2102.06387, theorem 3): τ < 10⁻⁴⁰⁰⁰
    from s = 32 on.

    That discrete Gaussian is post-processing of a continuous one. Let x be a point of
    the grid, Y = x + N(0, v₁), and let Z | Y have P(z) ∝ exp(−(z − Y)² / 2 v₂) on the grid: how Z
    is drawn depends on Y alone. Its normaliser is √(2π v₂) (1 ± 2 Σ_{k≥1} exp(−2π² v₂ k²)) whatever
    Y is, by Poisson's summation; so Z has the probabilities of the discrete Gaussian of variance
    v₁ + v₂ around x, up to a factor exp(±10⁻³³) at v₂ = 4 (Peikert 2010, CRYPTO, theorem 3.1).
    So a release of variance h s², sampling included, costs at most what the continuous Gaussian
    mechanism of variance h s² − 4 does, and every accountant of that one holds. s is chosen such
    that √(h s² − 4) γ = σ C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloister.errors import RefusedError
from cloister.privacy.discrete_noise import SMALLEST
from cloister.privacy.sharing import Sharing

# v₂ above, in squared steps: by this a discrete Gaussian needs more variance than a continuous one.
SMOOTHING = 4.0
# One site's share of variance s² protects like continuous noise of variance s² − 4, while the whole
# noise has σ² = h s² − 4. With s ≥ 32, s² − 4 is at least σ²/h times this.
SHARE_LEFT = 1 - SMOOTHING / SMALLEST**2
# Deviations of the whole noise that fit beside the signal: a normal exceeds 8 once in 10¹⁵.
NOISE_ROOM = 8.0
# The most that a coordinate of the sum may reach, as a fraction of K · expected batch · C, by bits;
# a site's sum is cut to a K-th of it, so that nothing wraps. With 32 bits it is 4: batches four
# times as large as expected, with every gradient along one axis. With 16 bits it is 1/64, enough if
# gradients have many values and do not lie along one axis; a head's bias is cut if one label
# prevails.
SIGNAL_ROOM = {32: 4.0, 16: 1 / 64}
# Rounding to the grid lowers the norm to which units are clipped by √d γ / 2: at most this part.
MOST_LENGTHENING = 0.25


@dataclass(frozen=True)
class SharedNoise:
    """A round's noise, computed from public constants alone.

    Attributes:
        bound: C, the norm of one unit's gradient.
        noise_multiplier: σ, of the sum of the fewest honest sites over C, as accounted.
        share: s, each site's deviation in steps of the grid.
        grid: γ, the value of one step; a power of two.
        room: Steps that a coordinate of a site's sum is cut to, either way, before noise.
    """

    bound: float
    noise_multiplier: float
    share: float
    grid: float
    room: int


def shared_noise(
    sharing: Sharing,
    *,
    bound: float,
    noise_multiplier: float,
    expected_batch_size: int,
    values: int,
) -> SharedNoise:
    """Computes a site's share of the noise, on the finest grid on which the sum of all sites fits.

    Args:
        sharing: Number of sites, of honest sites, and of bits.
        bound: C.
        noise_multiplier: σ that the sum must have.
        expected_batch_size: Expected batch of a site.
        values: d, the values of an update.

    Raises:
        RefusedError: So few bits leave no room: rounding would take more than a quarter of the
            bound, or the noise is too coarse to be drawn.

    Guarantees:
        For each unit the sum over at least `sharing.honest` honest sites costs at most as much as
        the Gaussian mechanism of `noise_multiplier`, for any values that the other sites send.
    """
    signal = SIGNAL_ROOM[sharing.bits] * sharing.sites * expected_batch_size
    noise = NOISE_ROOM * noise_multiplier * math.sqrt(sharing.sites / sharing.honest)
    # The least power of two at which signal and noise stay below 2^(bits − 1) steps.
    finest = math.ceil(math.log2((signal + noise) * bound)) - (sharing.bits - 1)
    grid = 2.0**finest
    whole = (noise_multiplier * bound / grid) ** 2
    share = math.sqrt((whole + SMOOTHING) / sharing.honest)
    lengthening = math.sqrt(values) * grid / 2 / bound
    all_noise = NOISE_ROOM * share * math.sqrt(sharing.sites)
    room = math.floor((2 ** (sharing.bits - 1) - 1 - all_noise) / sharing.sites)
    if lengthening > MOST_LENGTHENING or share < SMALLEST or room < 1:
        raise RefusedError(
            f"secure aggregation with {sharing.bits} bits a value: {sharing.sites} sites, {values} "
            f"values and noise {noise_multiplier:g} leave a grid of {grid / bound:.2g} of the "
            "bound, too coarse; use 32 bits, or fewer trained parameters"
        )
    return SharedNoise(bound, noise_multiplier, share, grid, room)


def sum_excess(share: float, sites: int) -> float:
    """Returns τ: the largest difference of a sum of discrete Gaussians from one discrete Gaussian,
    in log probability.

    Args:
        share: s, deviation of each term in steps of the grid.
        sites: How many terms are summed.
    """
    return 10 * math.fsum(
        math.exp(-2 * math.pi**2 * share**2 * k / (k + 1)) for k in range(1, sites)
    )
