"""Whether a count is more than its past explains: an exact test of two rates.

Under one rate, of c + b Poisson events the number in the window is binomial with the window's share
of the exposure (Przyborowski and Wilenski 1940, Homogeneity of results in testing samples from
Poisson series); so the past's own uncertainty is part of the test. Counts of news, and of most
things, vary more than a Poisson's: they are taken to be negative binomial with the past's dispersion
φ, and given their sum the window's number is then beta-binomial (Robinson and Smyth 2008,
Small-sample estimation of negative binomial dispersion). To divide counts by φ alone, as
Farrington et al. 1996 do, gives too light a tail at the levels of many looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import betainc, betaln, chdtri

# Below this φ the two tails are the same to a few per cent, and the beta functions lose digits.
NEARLY_POISSON = 1.001
# Terms of the tail's sum: a hundred standard deviations of a window's count of a million.
MOST_TERMS = 200_000


def dispersion(counts: Sequence[float], exposures: Sequence[float]) -> float:
    """Pearson's estimate of how much more counts vary than a Poisson's; at least 1.

    Args:
        counts: Of periods of the past, [K].
        exposures: Of each, such as its length or its rows, [K].

    Returns:
        Σ (c − e)² / e / (K − 1) with e as one rate gives it; 1 where there is too little to tell.
    """
    c, exposure = np.asarray(counts, dtype=float), np.asarray(exposures, dtype=float)
    c, exposure = c[exposure > 0], exposure[exposure > 0]
    if len(c) < 2 or not c.sum():
        return 1.0
    expected = c.sum() * exposure / exposure.sum()
    return max(1.0, float(((c - expected) ** 2 / expected).sum()) / (len(c) - 1))


def excess(
    count: float, exposure: float, past: float, past_exposure: float, dispersed: float
) -> float:
    """The p-value of a count as large or larger, if the rate is the past's.

    Args:
        count: Events of the window.
        exposure: Of the window.
        past: Events of the past.
        past_exposure: Of the past.
        dispersed: The dispersion φ, from 1: the variance of a window's count over its mean.

    Returns:
        The binomial tail at φ = 1, the beta-binomial one above; 1 where nothing happened, or there
        is no exposure.
    """
    if count <= 0 or exposure <= 0 or past_exposure <= 0:
        return 1.0
    share = exposure / (exposure + past_exposure)
    if dispersed < NEARLY_POISSON:
        return float(betainc(count, past + 1, share))
    total = count + past
    # A negative binomial of mean μ and variance φ·μ has size μ / (φ − 1).
    size = total / (dispersed - 1)
    a, b = size * share, size * (1 - share)
    k = np.arange(count, min(total, count + MOST_TERMS) + 1)
    ways = -np.log1p(total) - betaln(total - k + 1, k + 1)
    logs = ways + betaln(k + a, total - k + b) - betaln(a, b)
    return float(min(1.0, np.exp(logs).sum()))


def poisson_interval(count: int, exposure: float, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a Poisson rate (Garwood 1936, Fiducial limits for the Poisson).

    Args:
        count: Events.
        exposure: Over which they happened, above 0.
        level: Of confidence.

    Returns:
        Events per unit of exposure, low and high.
    """
    tail = (1 - level) / 2
    # chdtri is the chi-square distribution's upper quantile.
    low = chdtri(2 * count, 1 - tail) / 2 if count else 0.0
    return float(low / exposure), float(chdtri(2 * count + 2, tail) / 2 / exposure)
