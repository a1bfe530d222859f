"""The plan of votes: its event, what ε costs, and which sections of privacy cannot be."""

from typing import Any

import pytest

from cloister.errors import RefusedError, UsageError
from cloister.privacy.accounting import epsilon
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.events import GaussianEvent
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.vote_plan import vote_plan
from cloister.privacy.votes import MOST

SIZES = {"public_records": 50, "candidates": 8, "rounds": 3, "sites": 3}


def test_its_event_is_the_gaussian_mechanism_at_rate_one_and_the_target_is_met() -> None:
    plan = vote_plan(PrivacyConfig(epsilon=2.0), **SIZES)
    noise = plan.noise_multiplier
    event = GaussianEvent(noise_multiplier=noise, sample_rate=1.0, steps=3)
    assert plan.listed == ((ReleaseKind.VOTE, event),)
    assert 1.95 < epsilon([event], plan.delta) <= 2.0
    # Three releases cost what one with √3 times less noise costs; no candidate costs more.
    alike = GaussianEvent(noise_multiplier=noise / 3**0.5, sample_rate=1.0, steps=1)
    assert epsilon([alike], plan.delta) == pytest.approx(plan.epsilon_after(3), abs=2e-3)
    more = vote_plan(PrivacyConfig(epsilon=2.0), **{**SIZES, "candidates": 9, "public_records": 51})
    assert more.noise_multiplier == noise
    assert dict(plan.message) == {"votes": (8,)}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"enabled": False}, "votes without noise"),
        ({"noise_multiplier": 0.0}, "votes without noise"),
        ({"noise_bands": 2}, "votes have neither"),
        ({"evaluation_rounds": (1,)}, "votes have neither"),
        ({"site_epsilon": 1.0}, "hides units and not a whole site"),
    ],
)
def test_what_votes_do_not_have_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        vote_plan(PrivacyConfig(**given), **SIZES)


@pytest.mark.parametrize("candidates", [1, MOST + 1])
def test_a_number_of_candidates_that_no_plan_can_have(candidates: int) -> None:
    with pytest.raises(RefusedError, match="candidates given"):
        vote_plan(PrivacyConfig(noise_multiplier=1.0), **{**SIZES, "candidates": candidates})


def test_shared_noise_is_that_of_the_fewest_honest_sites_and_costs_the_same() -> None:
    alone = vote_plan(PrivacyConfig(epsilon=2.0), **{**SIZES, "sites": 5})
    shared = PrivacyConfig(epsilon=2.0, noise="shared", missing_sites=1, colluding_sites=1)
    plan = vote_plan(shared, **{**SIZES, "sites": 5})
    assert plan.listed == alone.listed
    noise = plan.shared_vote_noise()
    # 5 − 1 − 1 = 3 shares make σ, and 4 / noise.share² more for the grid (`SMOOTHING`).
    assert noise.share * noise.grid * 3**0.5 == pytest.approx(plan.noise_multiplier, rel=2e-3)
    assert noise.share * noise.grid * 3**0.5 >= plan.noise_multiplier
    # All units of all sites may vote for one candidate, four times over, and nothing wraps.
    assert noise.room * noise.grid >= 4 * 50
    left = plan.alone()
    assert left is not None
    assert left.votes == 8
    assert left.epsilon_after(3) > plan.epsilon_after(3)


@pytest.mark.parametrize(
    ("given", "sizes", "why"),
    [
        ({"secure_bits": 16}, {}, "need 32 bits"),
        ({}, {"sites": 2}, "at least 3 sites"),
        ({}, {"public_records": 10**9}, "no grid in 32 bits that is fine enough"),
    ],
)
def test_noise_that_cannot_be_shared_is_refused(
    given: dict[str, Any], sizes: dict[str, int], why: str
) -> None:
    config = PrivacyConfig(noise_multiplier=1.0, noise="shared", **given)
    with pytest.raises(RefusedError, match=why):
        vote_plan(config, **{**SIZES, **sizes})
