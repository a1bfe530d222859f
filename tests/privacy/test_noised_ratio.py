"""Intervals of ratios of noised sums: by brute force, and by how often they cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.privacy.noised_ratio import Estimate, Ratio, estimate
from tests.support.examples import tries

ACCURACY = Ratio(np.array([1.0, 0.0]), np.array([1.0, 1.0]), high=1.0, is_share=True)


def by_scan(noised: np.ndarray, variance: float, units: float) -> tuple[float, float]:
    """The slow twin: every θ of a fine grid that the normal test at 5 % does not reject."""
    theta = np.linspace(0.0, 1.0, 100_001)
    a, b = ACCURACY.above[:, None], ACCURACY.below[:, None]
    off = (noised[0] - theta * noised.sum()) ** 2
    spread = ((a - theta * b) ** 2).sum(axis=0) * variance + units * theta * (1 - theta)
    kept = theta[off <= 1.959964**2 * spread]
    return float(kept.min()), float(kept.max())


@settings(max_examples=tries(40), deadline=None)
@given(st.floats(20.0, 500.0), st.floats(20.0, 500.0), st.floats(0.1, 30.0))
def test_both_intervals_are_the_values_that_the_test_does_not_reject(
    right: float, wrong: float, variance: float
) -> None:
    noised = np.array([right, wrong])
    found = estimate(ACCURACY, noised, np.full(2, variance))
    assert found.population is not None
    assert found.held_out == pytest.approx(by_scan(noised, variance, 0.0), abs=2e-5)
    units = right + wrong
    assert found.population == pytest.approx(by_scan(noised, variance, units), abs=2e-5)
    assert found.population[0] <= found.held_out[0] <= found.held_out[1] <= found.population[1]


def test_without_noise_the_population_s_interval_is_wilson_s() -> None:
    found = estimate(ACCURACY, np.array([30.0, 10.0]), np.zeros(2))
    # Wilson 1927 at 30 of 40.
    assert found.population == pytest.approx((0.598060, 0.858129), abs=1e-6)
    assert found.held_out == (0.75, 0.75)


@pytest.mark.parametrize("noised", [[0.5, 0.2], [-3.0, 1.0], [0.0, 0.0]])
def test_a_denominator_that_noise_hides_says_nothing(noised: list[float]) -> None:
    found = estimate(ACCURACY, np.array(noised), np.full(2, 4.0))
    assert found == Estimate(None, (0.0, 1.0), (0.0, 1.0))


def test_a_log_is_exponentiated_and_may_be_infinite() -> None:
    ratio = Ratio(np.array([1.0, 0.0]), np.array([0.0, 1.0]), is_log=True)
    found = estimate(ratio, np.array([20.0, 10.0]), np.zeros(2))
    assert found.value == pytest.approx(math.exp(2.0))
    assert found.held_out == pytest.approx((math.exp(2.0),) * 2)
    assert estimate(ratio, np.array([20.0, 1.0]), np.ones(2)).held_out == (1.0, math.inf)


def covered(repeats: int, seed: int) -> tuple[float, float]:
    """How often the intervals hold the held-out and the population's accuracy."""
    rng, population, deviation = np.random.default_rng(seed), 0.85, 8.0
    hits = np.zeros(2)
    for _ in range(repeats):
        right = rng.binomial(400, population)
        noised = np.array([right, 400 - right]) + rng.normal(0, deviation, 2)
        found = estimate(ACCURACY, noised, np.full(2, deviation**2))
        assert found.population is not None
        hits += [
            found.held_out[0] <= right / 400 <= found.held_out[1],
            found.population[0] <= population <= found.population[1],
        ]
    return hits[0] / repeats, hits[1] / repeats


def test_the_true_accuracy_is_inside_in_94_percent_of_500_repeats() -> None:
    # 0.95 less one standard deviation of a share of 500 repeats (0.01) is 0.94.
    assert min(covered(500, seed=1)) >= 0.94


@pytest.mark.nightly
def test_the_true_accuracy_is_inside_in_95_percent_of_many_repeats() -> None:
    # Three standard deviations of a share of 20,000 repeats are 0.0046.
    for share in covered(20_000, seed=2):
        assert abs(share - 0.95) <= 0.0046
