"""One step's distribution is dp-accounting's own, to the last bit."""

import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from cloister.privacy import one_step as one_step_file
from cloister.privacy.one_step import one_step
from cloister.privacy.pld import COARSE, FINE


def probabilities(distribution: object, side: str) -> tuple[int, list[float], float]:
    pmf = getattr(distribution, side).to_dense_pmf()
    return pmf._lower_loss, pmf._probs.tolist(), pmf._infinity_mass


@pytest.mark.parametrize(
    ("noise", "rate", "grid"),
    [
        *((noise, rate, COARSE) for noise in (0.3, 1.0, 3.7, 50.0) for rate in (1e-4, 0.25, 1.0)),
        (1.0, 0.9, COARSE),
        # A point of the grid lies where the loss ends, and right before.
        *((1.0, 1 - math.exp(-end), COARSE) for end in (0.5, 0.5 * (1 + 5e-10), 1 + 5e-10)),
        (0.8, 1e-12, COARSE),
        (4.0, 0.02, FINE),
    ],
)
def test_it_is_dp_accounting_s_to_the_last_bit(noise: float, rate: float, grid: float) -> None:
    theirs = from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        pessimistic_estimate=True,
        value_discretization_interval=grid,
        use_connect_dots=True,
    )
    own = one_step(noise, rate, grid)
    for side in ("_pmf_remove", "_pmf_add"):
        assert probabilities(own, side) == probabilities(theirs, side)


def test_a_loss_beyond_its_range_is_no_number_but_an_error() -> None:
    with pytest.raises(ValueError, match="beyond the range of floats"):
        one_step_file._inverse(np.array([-1.0]), 1.0, 0.25, True)
