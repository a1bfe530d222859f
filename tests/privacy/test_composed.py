"""The distribution of many steps is dp-accounting's own, to the last bit."""

import math

import numpy as np
import pytest
from dp_accounting.pld.pld_pmf import DensePLDPmf
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_mixture_gaussian_mechanism,
)
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.privacy.composed import deltas_at, epsilon_at, self_composed
from cloister.privacy.one_step import one_step
from cloister.privacy.pld import COARSE, FINE
from tests.privacy.test_one_step import probabilities


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "grid"),
    [
        (1.0, 0.032, 600, COARSE),
        (1.0, 1.0, 1, COARSE),
        (5.0, 1.0, 30, FINE),
        (0.3, 0.01, 100, COARSE),
        (4.0, 0.01, 10_000, FINE),
        (0.7, 1e-5, 100_000, COARSE),
        (100.0, 0.5, 7, FINE),
        (50.0, 1e-4, 3, COARSE),
    ],
)
def test_it_is_dp_accounting_s_to_the_last_bit(
    noise: float, rate: float, steps: int, grid: float
) -> None:
    one = one_step(noise, rate, grid)
    own, theirs = self_composed(one, steps), one.self_compose(steps)
    for side in ("_pmf_remove", "_pmf_add"):
        assert probabilities(own, side) == probabilities(theirs, side)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.0, 0.032, 600), (0.5, 1.0, 2), (9, 1.0, 1)]
)
def test_its_delta_is_dp_accounting_s(noise: float, rate: float, steps: int) -> None:
    composed = self_composed(one_step(noise, rate, COARSE), steps)
    epsilons = [0.0, 0.0005, 0.02, 1.0, 1.001, 3.0, 40.0]
    theirs = composed.get_delta_for_epsilon(epsilons)
    # Both are a difference of sums below 1.
    np.testing.assert_allclose(deltas_at(composed, epsilons), theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.0, 0.032, 600), (0.5, 1.0, 2), (9, 1.0, 1), (0.2, 1.0, 9)]
)
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.3, 0.999])
def test_its_epsilon_is_dp_accounting_s(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    composed = self_composed(one_step(noise, rate, COARSE), steps)
    theirs = composed.get_epsilon_for_delta(delta)
    # dp-accounting counts losses down by the grid's width, whose error of 10⁻¹⁹ a point adds up:
    # over 10⁶ points to 10⁻¹³, and half as much again in each of 10⁴ steps of the sum.
    assert epsilon_at(composed, delta) == pytest.approx(theirs, abs=1e-8)


@given(
    first=st.integers(-30, 30),
    masses=st.lists(st.sampled_from([0.0, 1e-12, 0.001, 0.3, 1.0]), min_size=1, max_size=20),
    infinite=st.sampled_from([0.0, 1e-9, 0.1, 0.5]),
    grid=st.sampled_from([0.01, 1.0, 100.0]),  # at 100 e^-loss is 0 in floats, from a loss of 800
    delta=st.sampled_from([1e-12, 1e-9, 1e-5, 0.1, 0.2, 0.6]),
)
@example(first=30, masses=[1.0], infinite=0.0, grid=100.0, delta=1e-5)
@example(first=8, masses=[0.3, 0.3, 0.001, 1.0], infinite=1e-9, grid=100.0, delta=0.2)
@example(first=0, masses=[1.0], infinite=0.5, grid=1.0, delta=0.1)
def test_epsilon_is_dp_accounting_s_for_any_distribution(
    first: int, masses: list[float], infinite: float, grid: float, delta: float
) -> None:
    """With infinite losses, losses of one side alone, and gaps."""
    whole = sum(masses) or 1.0
    probabilities = np.array(masses) * (1 - infinite) / whole
    side = DensePLDPmf(grid, first, probabilities, infinite, True)
    try:
        theirs = side.get_epsilon_for_delta(delta)
    except OverflowError:  # it goes on to losses below 0, which change no ε
        theirs = 0.0
    own = epsilon_at(PrivacyLossDistribution(side), delta)
    assert own == theirs == math.inf or own == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("at", [0, 1, 2, None])
def test_what_is_no_number_bounds_no_epsilon(at: int | None) -> None:
    """NaN compares false with every δ, and so may pass for ε = 0."""
    probabilities = np.array([0.2, 0.5, 0.3])
    if at is not None:
        probabilities[at] = math.nan
    side = DensePLDPmf(1.0, -1, probabilities, 0.0 if at is not None else math.nan, True)
    assert epsilon_at(PrivacyLossDistribution(side), 1e-5) == math.inf


def test_a_group_s_is_too() -> None:
    one = from_mixture_gaussian_mechanism(
        1.0,
        sensitivities=[0.0, 1.0, 2.0],
        sampling_probs=[0.81, 0.18, 0.01],
        value_discretization_interval=0.02,
    )
    own, theirs = self_composed(one, 40), one.self_compose(40)
    for side in ("_pmf_remove", "_pmf_add"):
        assert probabilities(own, side) == probabilities(theirs, side)
