"""Computes ε by dp-accounting's privacy loss distributions, pessimistic (connect-the-dots).

Doroshenko et al. 2022, arXiv:2207.04380. Both adding and removing are covered: the larger ε counts.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from cloister.privacy.composed import deltas_at, epsilon_at, self_composed
from cloister.privacy.one_step import one_step

# Width of the distributions' grid. FINE is dp-accounting's own default; COARSE is ten times as
# fast, an upper bound too, and looser: by 0.0003 after 600 steps, 0.013 after 10,000 (L1, A1 of
# the tests' table).
FINE, COARSE = 1e-4, 1e-3

# Grid for groups of records, where bisection finds each point at 20 times the cost. The grid's
# error in ε grows with steps · width²: divided by √steps, it stays below 0.015 (measured against
# COARSE for 30 to 10,000 steps; a group's ε is 10 and more).
GROUP_GRID, GROUP_GRID_OVER_STEPS = 2e-2, 0.2

# Convolutions by FFT leave an error in δ that nothing rounds up: 1.4·10⁻¹³ was the most measured
# against closed forms (10³ to 10⁵ steps on both grids; the tests hold some of them). δ is moved by
# this to the safe side, which moves ε by 10⁻⁷ at δ = 10⁻⁵ and by 0.002 at 10⁻⁹.
FFT_ERROR = 1e-11

# (noise multiplier, sample rate, steps) each, in rising order.
Composition = tuple[tuple[float, float, int], ...]


@lru_cache(maxsize=4096)
def pld_epsilon(composition: Composition, delta: float, grid: float = FINE) -> float:
    """Computes ε of composed Poisson-subsampled Gaussians by PLD, rounded up.

    Args:
        composition: (noise multiplier, sample rate, steps) of each mechanism.
        delta: δ of the guarantee.
        grid: Width of the privacy loss distributions' grid.

    Returns:
        An upper bound on ε per unit added or removed; ∞ if the grid cannot hold the loss.
    """
    try:
        if not composition:
            return 0.0
        return epsilon_at(_total(composition, grid), delta - FFT_ERROR)
    except (MemoryError, OverflowError):
        return math.inf  # a loss too large for the accountant's grid: no bound, so no release


@lru_cache(maxsize=64)
def pld_true_positive_rate(composition: Composition, false_positive_rate: float) -> float:
    """Bounds the true-positive rate of every test for one unit.

    The bound is the minimum over ε ≥ 0 of e^ε · FPR + δ(ε).

    Every (ε, δ(ε)) of the mechanism bounds every test (Kairouz, Oh, Viswanath 2015,
    arXiv:1311.0776, theorem 2.1); the best of them is its trade-off curve, up to where its slope
    is 1: beyond, at large rates, this bound is looser.
    """
    epsilons = tuple(step * EPSILON_STEP for step in range(round(LARGEST_TRADED / EPSILON_STEP)))
    deltas = pld_deltas(composition, epsilons)
    bounds = (
        math.exp(epsilon) * false_positive_rate + delta
        for epsilon, delta in zip(epsilons, deltas, strict=True)
    )
    return min(1.0, *bounds)


@lru_cache(maxsize=64)
def pld_deltas(composition: Composition, epsilons: tuple[float, ...]) -> tuple[float, ...]:
    """Computes δ at each ε, the larger one of adding and removing.

    It is 1 if the grid cannot hold the loss.
    """
    try:
        found = deltas_at(_total(composition, COARSE), epsilons)
    except (MemoryError, OverflowError):
        return (1.0,) * len(epsilons)
    return tuple(min(1.0, float(delta) + FFT_ERROR) for delta in found)


# ε at which a trade-off curve is evaluated: above 20 no rate that people state is bounded below 1.
LARGEST_TRADED, EPSILON_STEP = 20.0, 0.02


def _total(composition: Composition, grid: float) -> Any:
    parts = [_composed(noise, rate, steps, grid) for noise, rate, steps in composition]
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return total


@lru_cache(maxsize=64)
def group_pld_epsilon(composition: Composition, delta: float, records: int) -> float:
    """Computes ε for `records` records that are added or removed together.

    Each is drawn into a batch independently, so a batch moves by k·C with the probability of k
    successes in Binomial(records, q): a mixture of Gaussians.

    Args:
        composition: (noise multiplier, sample rate, steps) of each mechanism.
        delta: δ of the guarantee.
        records: Number of records.

    Guarantees:
        An upper bound, on a grid of width `group_grid(steps)` for the steps of all mechanisms; also
        if a mechanism sees fewer of the records, as each further record moves a sum further.
    """
    grid = group_grid(sum(steps for *_, steps in composition))
    try:
        parts = [
            self_composed(_group_step(noise, rate, grid, records), steps)
            for noise, rate, steps in composition
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total.compose(part)
        return epsilon_at(total, delta - FFT_ERROR)
    except (MemoryError, OverflowError):
        return math.inf


def _group_step(noise_multiplier: float, sample_rate: float, grid: float, records: int) -> Any:
    from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism
    from scipy.stats import binom

    counts = range(records + 1)
    return from_mixture_gaussian_mechanism(
        noise_multiplier,
        sensitivities=[float(k) for k in counts],
        sampling_probs=[float(binom.pmf(k, records, sample_rate)) for k in counts],
        pessimistic_estimate=True,
        value_discretization_interval=grid,
        use_connect_dots=True,
    )


def group_grid(steps: int) -> float:
    """Returns the grid's width for groups of records: wider than for one record, which is
    cheaper."""
    return max(COARSE, min(GROUP_GRID, GROUP_GRID_OVER_STEPS / math.sqrt(steps)))


@lru_cache(maxsize=256)
def _composed(noise_multiplier: float, sample_rate: float, steps: int, grid: float) -> Any:
    return self_composed(_one_step(noise_multiplier, sample_rate, grid), steps)


@lru_cache(maxsize=64)
def _one_step(noise_multiplier: float, sample_rate: float, grid: float) -> Any:
    """The distribution of one step, cached because making it costs more than composing it."""
    return one_step(noise_multiplier, sample_rate, grid)
