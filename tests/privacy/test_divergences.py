"""The divergences of one step equal dp-accounting's, to the last bits."""

import logging
import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

from cloister.privacy.divergences import divergences

ORDERS = tuple(DEFAULT_RDP_ORDERS)


def dp_accounting_s(noise: float, rate: float) -> list[float]:
    accountant = RdpAccountant(list(ORDERS))
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)))
    found = [float(value) for value in accountant._rdp]
    return [math.inf if math.isnan(value) or value < 0 else value for value in found]


@pytest.mark.parametrize("noise", [0.2, 0.7, 3.7, 1000.0])
@pytest.mark.parametrize("rate", [0.0, 1e-12, 1e-4, 0.032, 0.9, 1.0])
def test_they_are_dp_accounting_s(
    noise: float, rate: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="absl")  # of series that do not converge
    theirs, own = np.array(dp_accounting_s(noise, rate)), np.array(divergences(noise, rate, ORDERS))
    assert (np.isinf(own) == np.isinf(theirs)).all()
    # Of sums near 1 the logarithms' last bits are all that there is.
    np.testing.assert_allclose(own, theirs, rtol=1e-11, atol=1e-13)


def test_a_series_that_does_not_converge_bounds_nothing() -> None:
    """It may need more than a thousand terms, and must not count as small then."""
    assert divergences(50.0, 0.5, (1.1, 2.0))[0] == math.inf
    assert 0 < divergences(50.0, 0.5, (1.1, 2.0))[1] < 1
