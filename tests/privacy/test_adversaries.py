"""An ε names its adversary, also if all other sites work together."""

import math
from dataclasses import replace

import pytest

from cloister.ledger.stated import of_plan_alone
from cloister.privacy import adversaries
from cloister.privacy.accounting import epsilon, rdp_epsilon
from cloister.privacy.sharing import Sharing
from tests.support.ledgers import shared_plan, small_plan

OWN, SHARED = small_plan(), shared_plan()
NOBODY = replace(SHARED, sharing=Sharing(sites=5, missing=1, colluding=0))


def test_a_site_s_own_noise_holds_against_everybody() -> None:
    assert adversaries.names([OWN]) == ["coordinator", "other-sites", "public"]
    assert adversaries.words([OWN]) == "the coordinator, the other sites and the public"
    assert adversaries.alone([(OWN, OWN.event(5))]) is None


def test_the_smallest_coalition_of_all_plans_counts() -> None:
    assert adversaries.names([OWN, SHARED]) == ["coordinator-with-1-other-sites", "public"]
    assert adversaries.colluding([SHARED, NOBODY, OWN]) == 0
    assert "at most 1 of the other sites" in adversaries.words([SHARED])
    assert "no other site" in adversaries.words([NOBODY])


def test_two_promises_hold_against_the_smaller_coalition_of_both() -> None:
    everybody = tuple(adversaries.names([OWN]))
    one, nobody = tuple(adversaries.names([SHARED])), tuple(adversaries.names([NOBODY]))
    assert adversaries.weaker(everybody, everybody) == everybody
    for first, second, expected in (
        (everybody, one, one),
        (one, nobody, nobody),
        (everybody, nobody, nobody),
        (one, one, one),
    ):
        assert adversaries.weaker(first, second) == expected
        assert adversaries.weaker(second, first) == expected


def test_all_others_take_their_shares_off() -> None:
    """Of σ² = 1 three honest sites add a third each, less what smoothing took of it."""
    event = SHARED.event(20)
    [seen] = adversaries.alone([(SHARED, event)]) or []
    assert seen.noise_multiplier == pytest.approx(math.sqrt(1 / 3), rel=2.1e-3)
    assert seen.noise_multiplier < math.sqrt(1 / 3)
    found = epsilon([seen], SHARED.delta)
    assert found > 2 * OWN.epsilon_after(4)
    assert rdp_epsilon([seen], SHARED.delta) > found
    promised = of_plan_alone(SHARED)
    assert promised is not None
    assert promised.epsilon == found
    assert promised.against == "the coordinator with all other sites"


def test_what_is_not_shared_stays_as_it_is() -> None:
    seen = adversaries.alone([(OWN, OWN.event(5)), (SHARED, SHARED.event(5))]) or []
    assert seen[0] == OWN.event(5)
    assert seen[1].noise_multiplier < 1


def test_seeded_shares_stay_without_privacy() -> None:
    seeded = replace(SHARED.event(5), is_private=False)
    assert epsilon(adversaries.alone([(SHARED, seeded)]) or [], 1e-5) == math.inf
