"""Tests whether a count is larger than its past explains, by an exact test of two rates.

If the rate of Poisson events is constant, the number of the c + b events that are in the window is
binomial with the window's share of the exposure (Przyborowski and Wilenski 1940, Homogeneity of
results in testing samples from Poisson series). So the test includes the uncertainty of the past.
Most counts, such as those of news, vary more than Poisson counts. They are modelled as negative
binomial with the dispersion φ of the past; given the sum, the number in the window is then
beta-binomial (Robinson and Smyth 2008, Small-sample estimation of negative binomial dispersion).
The simpler method of Farrington et al. 1996, which divides both counts by φ, has too light a tail
at the small levels that many looks need.
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
    """Returns Pearson's estimate of the dispersion of counts, relative to Poisson; at least 1.

    Args:
        counts: Counts in periods of the past, [K].
        exposures: Exposure of each period, such as its length or its rows, [K].

    Returns:
        Σ (c − e)² / e / (K − 1), where e is the expected count at a constant rate; 1 if there are
        too few periods.
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
    """Returns the p-value of a count as large or larger, if the rate is that of the past.

    Args:
        count: Number of events in the window.
        exposure: Exposure of the window.
        past: Number of events in the past.
        past_exposure: Exposure of the past.
        dispersed: The dispersion φ, at least 1: variance over mean of a window's count.

    Returns:
        The binomial tail at φ = 1, the beta-binomial tail above; 1 if there is no event or no
        exposure.
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
    """Returns the exact interval of a Poisson rate (Garwood 1936, Fiducial limits).

    Args:
        count: Number of events.
        exposure: Exposure in which they happened, above 0.
        level: The confidence level.

    Returns:
        The low and the high end, in events per unit of exposure.
    """
    tail = (1 - level) / 2
    # chdtri is the chi-square distribution's upper quantile.
    low = chdtri(2 * count, 1 - tail) / 2 if count else 0.0
    return float(low / exposure), float(chdtri(2 * count + 2, tail) / 2 / exposure)
