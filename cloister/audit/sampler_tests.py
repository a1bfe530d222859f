"""Tests that each unit is in each batch by an independent coin of the plan's rate.

Counts are tested with the binomial distribution itself; sums of products (two units' coins, two
batches' coins) with Bernstein's bound, which holds for independent terms of any distribution: with
c = coin − q, v = q(1 − q), n products reach s with probability at most 2 exp(−s² / 2(n v² + max(q,
1 − q)² s / 3)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloister.audit.statistics import (
    Bools,
    Check,
    Floats,
    exact_check,
    p_check,
    smallest,
    two_sided,
)

# Most units of which all pairs are tested; of more units, the first and the last half of this
# number.
MOST_PAIRED = 1500
# Longest distance between batches at which products are summed over all batches; single pairs of
# batches are compared at any distance.
MOST_LAGS = 1000


def inclusion(batches: Sequence[NDArray[np.int64]], units: int) -> tuple[Bools, int]:
    """Which unit is in which batch, and how many batches are not sets of units.

    Args:
        batches: The drawn indices.
        units: Number of units at the site.

    Returns:
        Booleans [T, U], and how many batches have an index twice, or an index without a unit.
    """
    drawn = np.zeros((len(batches), units), dtype=bool)
    malformed = 0
    for row, batch in zip(drawn, batches, strict=True):
        at = np.asarray(batch, dtype=np.int64)
        inside = at[(at >= 0) & (at < units)]
        row[inside] = True
        malformed += int(row.sum() != len(at))
    return drawn, malformed


def sampler_checks(batches: Sequence[NDArray[np.int64]], units: int, rate: float) -> list[Check]:
    """Runs every statistical test of the sampler.

    Args:
        batches: Indices, in the order they were drawn.
        units: Number of units at the site.
        rate: The plan's.
    """
    drawn, malformed = inclusion(batches, units)
    form = exact_check("batch form", "batches with a unit twice, or an index of no unit", malformed)
    if rate == 1:
        return [
            form,
            exact_check(
                "sampling rate", "units that a batch at rate 1 leaves out", float((~drawn).sum())
            ),
        ]
    return [
        form,
        p_check(
            "sampling rate",
            "number of each unit's batches, and of all (binomial); units of high "
            "index compared with units of low index",
            unit_p(drawn, rate),
        ),
        p_check("sampling of pairs", "batches that two units share", [pair_p(drawn, rate)]),
        p_check(
            "batch sizes",
            "law, spread, largest and smallest of the sizes (binomial)",
            size_p(drawn, rate),
        ),
        p_check(
            "sampling across steps",
            "units that two batches share: every two, and at each distance",
            batch_p(drawn, rate),
        ),
    ]


def sampler_p(drawn: Bools, rate: float) -> list[float]:
    """The smallest p-value of each group of tests, for one series of batches."""
    groups = (unit_p(drawn, rate), [pair_p(drawn, rate)], size_p(drawn, rate), batch_p(drawn, rate))
    return [smallest(np.array(group)) for group in groups]


def binomial_p(counts: NDArray[np.int64], trials: int, rate: float) -> Floats:
    """Two-sided p-values of binomial counts."""
    from scipy import stats

    seen, places = np.unique(counts, return_inverse=True)
    below = stats.binom.cdf(seen, trials, rate)
    above = stats.binom.sf(seen - 1, trials, rate)
    return two_sided(below, above)[places]


def unit_p(drawn: Bools, rate: float) -> list[float]:
    """p-values of every unit's count, of all counts together, and of units of low and of high
    index."""
    batches, units = drawn.shape
    counts = drawn.sum(axis=0, dtype=np.int64)
    found = [smallest(binomial_p(counts, batches, rate))]
    for part in (counts, counts[: units // 2], counts[units // 2 :]):
        if len(part):
            found.append(float(binomial_p(part.sum(keepdims=True), batches * len(part), rate)[0]))
    return found


def pair_p(drawn: Bools, rate: float) -> float:
    """p-value of the products of every two units' coins."""
    units = drawn.shape[1]
    if units > MOST_PAIRED:
        half = MOST_PAIRED // 2
        drawn = np.concatenate([drawn[:, :half], drawn[:, -half:]], axis=1)
    coins = drawn.astype(np.float32) - np.float32(rate)
    sums = (coins.T @ coins)[np.triu_indices(drawn.shape[1], 1)].astype(np.float64)
    return smallest(bernstein(sums, len(drawn), rate))


def size_p(drawn: Bools, rate: float) -> list[float]:
    """p-values of the sizes' distribution and spread, and of the largest and smallest size."""
    from scipy import stats

    batches, units = drawn.shape
    sizes = np.sort(drawn.sum(axis=1, dtype=np.int64))
    law = stats.binom(units, rate)
    seen = np.unique(sizes)
    apart = np.abs(np.searchsorted(sizes, seen, side="right") / batches - law.cdf(seen)).max()
    apart = max(apart, np.abs(np.searchsorted(sizes, seen) / batches - law.cdf(seen - 1)).max())
    # Dvoretzky, Kiefer, Wolfowitz with Massart's constant (1990): for any law, discrete ones too.
    found = [float(min(1.0, 2 * np.exp(-2 * batches * apart**2)))]
    largest, smallest_size = int(sizes[-1]), int(sizes[0])
    found.append(float(-np.expm1(batches * law.logcdf(largest - 1))) if largest else 1.0)
    found.append(float(np.exp(batches * law.logcdf(largest))))
    found.append(float(-np.expm1(batches * law.logsf(smallest_size))))
    found.append(float(np.exp(batches * law.logsf(smallest_size - 1))))
    variance = units * rate * (1 - rate)
    if variance > 2:
        found.append(_spread_p(np.square(sizes - units * rate) / variance, variance, rate))
    return found


def _spread_p(squares: Floats, variance: float, rate: float) -> float:
    """p-value of the sum of squared sizes, as a multiple of χ² with the same mean and variance."""
    from scipy import stats

    spread = 2 + (1 - 6 * rate * (1 - rate)) / variance  # the fourth moment of a binomial
    scale = spread / 2
    freedom = len(squares) / scale
    total = float(squares.sum()) / scale
    return float(two_sided(stats.chi2.cdf(total, freedom), stats.chi2.sf(total, freedom)))


def distance_p(batches: Sequence[NDArray[np.int64]], units: int, rate: float) -> list[float]:
    """p-values of the products of two units' coins, summed at each distance that is a power of two.

    A generator that runs out, or that counts in too few bits, repeats itself at such a distance.

    Args:
        batches: The drawn indices of a site that is too large to test every pair of units.
        units: Number of units at the site.
        rate: The plan's, below 1.
    """
    sums = np.zeros((max(units - 1, 0).bit_length(), 2))
    terms = np.zeros_like(sums)
    for batch in batches:
        coins = np.full(units, -rate)
        coins[batch] += 1
        for power in range(len(sums)):
            lag = 1 << power
            products = coins[:-lag] * coins[lag:]
            # A coin is in at most one product of those that begin in even blocks, and in one of the
            # others.
            whole = len(products) // (2 * lag) * (2 * lag)
            blocks = products[:whole].reshape(-1, 2, lag).sum(axis=(0, 2))
            rest = products[whole:]
            sums[power] += blocks + np.array([rest[:lag].sum(), rest[lag:].sum()])
            terms[power] += np.array([whole / 2 + min(len(rest), lag), whole / 2 + len(rest[lag:])])
    pairs = zip(sums.ravel(), terms.ravel(), strict=True)
    return [float(bernstein(np.array(total), int(count), rate)) for total, count in pairs if count]


def total_p(sizes: NDArray[np.int64], units: int, rate: float) -> list[float]:
    """Binomial p-values of each batch's size, and of all sizes together."""
    together = binomial_p(sizes.sum(keepdims=True), len(sizes) * units, rate)
    return [smallest(binomial_p(sizes, units, rate)), float(together[0])]


def batch_p(drawn: Bools, rate: float) -> list[float]:
    """p-values of the products of two batches' coins: of every two, and summed at each distance."""
    batches, units = drawn.shape
    coins = drawn.astype(np.float32) - np.float32(rate)
    products = (coins @ coins.T).astype(np.float64)
    every = smallest(bernstein(products[np.triu_indices(batches, 1)], units, rate))
    at_distance = []
    for lag in range(1, min(batches, MOST_LAGS + 1)):
        terms = np.diagonal(products, lag)
        # Batch t meets t + lag in one sum and t − lag in the other: each sum's terms are
        # independent.
        even = (np.arange(len(terms)) // lag) % 2 == 0
        for chosen in (even, ~even):
            if chosen.any():
                total, count = float(terms[chosen].sum()), int(chosen.sum()) * units
                at_distance.append(float(bernstein(np.array(total), count, rate)))
    return [every, smallest(np.array(at_distance))]


def bernstein(sums: Floats, terms: int, rate: float) -> Floats:
    """Bounds on the two-sided p-values of sums of `terms` products of two centred coins."""
    variance = terms * (rate * (1 - rate)) ** 2
    reach = max(rate, 1 - rate) ** 2
    exponent = np.square(sums) / (2 * (variance + reach * np.abs(sums) / 3))
    return np.asarray(np.minimum(1.0, 2 * np.exp(-exponent)), dtype=np.float64)


def independence_p(drawn: Bools, standard: Floats) -> list[float]:
    """p-values of the independence of noise and the batches that it was released with.

    Args:
        drawn: Which unit was in which batch, [T, U].
        standard: The noise of the same steps, N(0, 1) if sound, [T, d].

    Returns:
        p-values, exact given the batches: of every unit's coins against every value; of the sizes
        against every value and against each step's mean square.
    """
    from scipy import stats

    sizes = drawn.sum(axis=1, dtype=np.float64)
    columns = np.column_stack([drawn.astype(np.float64), sizes])
    columns -= columns.mean(axis=0)
    lengths = np.linalg.norm(columns, axis=0)
    columns = columns[:, lengths > 0] / lengths[lengths > 0]
    scores = np.abs(columns.T @ standard)
    cdf = stats.chi2.cdf(np.square(standard).sum(axis=1), standard.shape[1])
    levels = stats.norm.ppf(np.clip(cdf, 1e-300, 1 - 1e-16))
    against = np.abs(columns.T @ levels)
    return [smallest(2 * stats.norm.sf(scores)), smallest(2 * stats.norm.sf(against))]
