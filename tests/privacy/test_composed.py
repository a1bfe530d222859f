"""The distribution of many steps is dp-accounting's own, to the last bit."""

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism

from cloister.privacy.composed import deltas_at, self_composed
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
