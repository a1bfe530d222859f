"""An impossible event has no ε, and never counts as nothing released."""

import math

import pytest

from cloister.errors import RefusedError
from cloister.privacy.accounting import cross_check, epsilon, group_epsilon, rdp_epsilon
from cloister.privacy.events import GaussianEvent

SOUND = GaussianEvent(noise_multiplier=1.0, sample_rate=0.1, steps=10)
IMPOSSIBLE = [
    GaussianEvent(noise_multiplier=sigma, sample_rate=q, steps=steps)
    for sigma, q, steps in (
        (math.nan, 0.1, 1),
        (-1.0, 0.1, 1),
        (1.0, math.nan, 1),
        (1.0, 1.5, 1),
        (1.0, -0.1, 1),
        (1.0, 0.1, -1),
    )
]


@pytest.mark.parametrize("bad", IMPOSSIBLE, ids=str)
def test_an_impossible_event_is_refused_by_every_accountant(bad: GaussianEvent) -> None:
    for events in ([bad], [SOUND, bad]):
        for compute in (epsilon, rdp_epsilon, cross_check):
            with pytest.raises(RefusedError, match="this release is impossible"):
                compute(events, 1e-5)
        with pytest.raises(RefusedError, match="this release is impossible"):
            group_epsilon(events, 1e-5, 2)
