"""How much correlated noise would gain in a study, at the same ε and δ.

The gain is the error in the sums of gradients (`bands.sum_error`) with b bands, over that without:
below 1 it is smaller. What a study gains in accuracy is less than that, and has to be measured.
"""

from __future__ import annotations

from functools import lru_cache

from cloister.privacy.accounting import LARGEST_EPSILON, SMALLEST_NOISE
from cloister.privacy.bands import MOST, coefficients, sum_error
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.pld import COARSE, pld_epsilon

# Numbers of bands that are compared.
TRIED = (2, 4, 8, 16, 32)
# Below this gain a secret file at each site is not worth it.
LEAST_GAIN = 0.05
# Relative precision of the noise that is compared; a plan is calibrated to a tenth of it.
PRECISION = 0.01


@lru_cache(maxsize=64)
def gains(
    batch: int, records: int, rounds: int, epsilon: float, delta: float
) -> tuple[tuple[int, float], ...]:
    """Computes the error with each possible number of bands, over the error without.

    Args:
        batch: Expected batch, with one step a round.
        records: Declared units of a site.
        rounds: Rounds of the study.
        epsilon: ε of the whole study.
        delta: δ.

    Returns:
        (bands, error ratio), for numbers of bands that divide the rounds and whose rate is at most
        1.
    """
    possible = [b for b in TRIED if b <= MOST and rounds % b == 0 and b * batch <= records]
    if not possible:
        return ()
    alone = _noise(batch / records, rounds, epsilon, delta) * sum_error((), rounds)
    return tuple(
        (
            bands,
            _noise(bands * batch / records, rounds // bands, epsilon, delta)
            * sum_error(coefficients(bands, rounds), rounds)
            / alone,
        )
        for bands in possible
    )


def recommended(found: tuple[tuple[int, float], ...]) -> int | None:
    """Returns the number of bands with the least error; None if none gains `LEAST_GAIN`."""
    bands, ratio = min(found, key=lambda one: one[1], default=(1, 1.0))
    return bands if ratio <= 1 - LEAST_GAIN else None


def _noise(rate: float, steps: int, epsilon: float, delta: float) -> float:
    """Returns the noise multiplier that meets ε, to `PRECISION`, on a coarse grid."""
    low, high = SMALLEST_NOISE, 1.0
    while _epsilon(high, rate, steps, delta) > epsilon and high < MOST_NOISE:
        low, high = high, high * 2
    while high / low > 1 + PRECISION:
        middle = (low * high) ** 0.5
        if _epsilon(middle, rate, steps, delta) > epsilon:
            low = middle
        else:
            high = middle
    return high


def _epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    return min(pld_epsilon(((noise, rate, steps),), delta, COARSE), LARGEST_EPSILON)
