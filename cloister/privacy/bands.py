"""The coefficients of noise that is correlated over several steps, and what they gain.

Math:
    A study's steps add up gradients x_t. K is an integer, lower triangular matrix, constant along
    its b diagonals: k_0 ≥ k_1 ≥ … ≥ k_(b−1). The mechanism computes w = K x + z with independent z,
    and releases y_t with K y ≈ w. So y_t = x_t + n_t, and the noise n = K⁻¹ z is correlated such
    that part of it cancels in the sums of the y_t: banded matrix factorization (Choquette-Choo et
    al. 2023, arXiv:2306.08153). A unit that is in at most one of any b successive steps moves w by
    at most ‖k‖ = √(Σ k_i²) times its gradient's norm, so z has deviation σ ‖k‖ C.

    The root mean square error of the sums of 1, 2, …, T gradients is, over σ C and for each value,
    ‖k‖ √(Σ_t Σ_(s ≤ t) a_s² / T), where a_s is the sum of the first s + 1 entries of K⁻¹'s first
    column. `coefficients` minimises it among integers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.gaussian_table import REACH

Floats = NDArray[np.float64]

# Bands that are supported; the state is b - 1 vectors, and more than 32 gain less than 1 % at
# q = 0.02 and T = 120 (q b ≤ 1 ends the gain before).
FEWEST, MOST = 2, 32
# k_0: entries are integers over this, so rounding moves the error by less than 0.1 % (the tests
# compare with the optimum among real numbers).
SCALE = 256
# A bound is at most so many steps of its grid (`clipping.grid_of`). int64 holds 2^63; one bit is
# left for the sum. A deviation is below 2^52, as the table of its draws needs.
MOST_GRID_STEPS, MOST_INTEGER = 2.0**31, 2.0**62
# A step of the search counts if it lowers the error by more than this fraction: far above the
# rounding of its sums, so that every machine finds the same integers.
GAIN = 1e-9
# Strides of the search among integers.
STRIDES = (32, 8, 2, 1)


def check_bands(bands: tuple[int, ...]) -> None:
    """Checks that coefficients are those of a stable correlation.

    Raises:
        RefusedError: They are not 2 to 32 positive integers up to 256, none above the one before.
    """
    whole = all(type(k) is int and 1 <= k <= SCALE for k in bands)
    falling = whole and all(k >= after for k, after in pairwise(bands))
    if not FEWEST <= len(bands) <= MOST or not falling:
        raise RefusedError(
            f"bands {bands}: from {FEWEST} to {MOST} integers from 1 to {SCALE} are needed, none "
            "above the one before it"
        )


def length(bands: tuple[int, ...]) -> float:
    """Returns ‖k‖, which a unit's step moves w by over its gradient's norm; 1 without bands."""
    return math.sqrt(sum(k * k for k in bands)) if bands else 1.0


def inverse(bands: tuple[int, ...], steps: int) -> Floats:
    """Returns the first column of K⁻¹: what one step's z adds to each later step's noise, [steps].

    Without bands only the step itself has it.
    """
    from scipy.signal import lfilter

    impulse = np.zeros(steps)
    impulse[:1] = 1.0
    found: Floats = lfilter([1.0], [float(k) for k in bands or (1,)], impulse)
    return found


def sum_error(bands: tuple[int, ...], steps: int) -> float:
    """Returns the root mean square error of the sums of gradients, over σ C, per value."""
    added = np.cumsum(inverse(bands, steps))
    return length(bands) * math.sqrt(float(np.mean(np.cumsum(added**2))))


def step_variance(bands: tuple[int, ...], steps: int) -> float:
    """Returns the variance of the last step's own noise, over (σ C)²; 1 without bands."""
    return length(bands) ** 2 * float(np.sum(inverse(bands, steps) ** 2))


def check_room(bands: tuple[int, ...], noise_multiplier: float, steps: int) -> None:
    """Checks that no step's noise can leave the integers, whatever the bound is.

    Raises:
        RefusedError: It could.
    """
    deviation = noise_multiplier * length(bands) * MOST_GRID_STEPS
    largest = float(np.abs(inverse(bands, steps)).sum())  # of a step's noise, over the largest |z|
    if max(REACH * deviation * (1 + sum(bands) * largest), deviation * 2**10) >= MOST_INTEGER:
        raise RefusedError(
            f"noise_multiplier {noise_multiplier:g} with {len(bands)} bands over {steps} steps: "
            "the correlated noise does not fit the integers of a release; use fewer bands or less "
            "noise"
        )


@lru_cache(maxsize=64)
def coefficients(bands: int, steps: int) -> tuple[int, ...]:
    """Finds the coefficients with the least error of the sums of `steps` steps.

    The search begins at the square root of the matrix of prefix sums, cut to its first diagonals
    (Kalinin & Lampert 2024, arXiv:2405.13763), and changes one integer at a time.

    Args:
        bands: b, the number of diagonals.
        steps: T, the number of steps whose sums count.

    Guarantees:
        A function of its arguments, the same on every machine. ε does not depend on it: any
        coefficients that `check_bands` takes protect alike.
    """
    root = [1.0]
    for at in range(1, bands):
        root.append(root[-1] * (2 * at - 1) / (2 * at))
    best = tuple(max(round(SCALE * value), 1) for value in root)
    error = sum_error(best, steps)
    for stride in STRIDES:
        moved = True
        while moved:
            moved = False
            for at in range(1, bands):
                for change in (stride, -stride):
                    tried = (*best[:at], best[at] + change, *best[at + 1 :])
                    if not best[at - 1] >= tried[at] >= (best[at + 1] if at + 1 < bands else 1):
                        continue
                    found = sum_error(tried, steps)
                    if found < error * (1 - GAIN):
                        best, error, moved = tried, found, True
    return best
