"""Broken votes with shared noise: shares too small, of some counts, or charged as another kind."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloister.client import asked_charge, secure, voting
from cloister.client.secure import SecureExchange
from cloister.ledger.charge import Charge, Released
from cloister.privacy import vote_release
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.sharing import Sharing
from cloister.secagg import participant, unmasking
from cloister.training import vote_sum as summing
from tests.support.mutants.registry import mutant
from tests.support.mutants.votes import seeded_noise, unclipped

Integers = NDArray[np.int64]


@mutant("shared votes", "share of votes")
def vote_shares_for_all_sites(patch: pytest.MonkeyPatch) -> None:
    """σ/√K at each site: enough while nobody is missing and nobody colludes."""
    real = Plan.shared_vote_noise

    def fewer(self: Plan) -> SharedNoise:
        noise, sharing = real(self), self.sharing
        assert sharing is not None
        return replace(noise, share=noise.share * math.sqrt(sharing.honest / sharing.sites))

    patch.setattr(Plan, "shared_vote_noise", fewer)


@mutant("shared votes", "noise of summed votes")
def vote_shares_halved(patch: pytest.MonkeyPatch) -> None:
    def half(deviation: float, count: int, entropy: Entropy) -> Integers:
        return discrete_gaussian(deviation / 2, count, entropy)

    patch.setattr(vote_release, "discrete_gaussian", half)


@mutant("shared votes", "noise of summed votes")
def one_count_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    def but_one(deviation: float, count: int, entropy: Entropy) -> Integers:
        drawn = discrete_gaussian(deviation, count, entropy)
        drawn[0] = 0
        return drawn

    patch.setattr(vote_release, "discrete_gaussian", but_one)


@mutant("shared votes", "summed counts and their noise")
def a_site_without_votes_adds_no_share(patch: pytest.MonkeyPatch) -> None:
    """It sends zeros under its mask: the others' noise is what it was."""
    real = voting.release_vote_share

    def silent(clipped: Any, noise: SharedNoise, entropy: Entropy) -> Integers:
        (own,) = clipped.tensors
        return real(clipped, noise, entropy) if own.any() else own.numpy()

    patch.setattr(voting, "release_vote_share", silent)


@mutant("shared votes", "summed counts and their noise")
def vote_shares_that_cancel_between_two_counts(patch: pytest.MonkeyPatch) -> None:
    """Each count has a whole share; the votes of both together have none."""

    def cancelling(deviation: float, count: int, entropy: Entropy) -> Integers:
        drawn = discrete_gaussian(deviation, count, entropy)
        drawn[1] = -drawn[0]
        return drawn

    patch.setattr(vote_release, "discrete_gaussian", cancelling)


@mutant("shared votes", "influence of a voting unit")
def votes_of_a_sum_not_clipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(summing, "clipped_votes", unclipped)


@mutant("shared votes", "charges of summed votes")
def summed_votes_charged_in_the_first_round_only(patch: pytest.MonkeyPatch) -> None:
    """Later rounds are charged as if they were the first one of another study."""

    def elsewhere(**fields: Any) -> Charge:
        if fields["kind"] is ReleaseKind.VOTE and fields["round"] > 2:
            fields |= {"study": f"another {fields['round']}", "round": 1}
        return Charge(**fields)

    patch.setattr(asked_charge, "Charge", elsewhere)


@mutant("shared votes", "share of votes")
def vote_shares_that_trust_every_site(patch: pytest.MonkeyPatch) -> None:
    """Sites that collude with the coordinator take their own shares off the sum."""
    patch.setattr(Sharing, "honest", property(lambda self: self.threshold))


@mutant("shared votes", "noise of summed votes")
def vote_shares_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    """Of the right size, and charged as private; who knows the study can take them off."""
    seeded_noise(patch)


@mutant("shared votes", "charge before summed votes")
def summed_votes_charged_after_they_are_counted(patch: pytest.MonkeyPatch) -> None:
    real = voting.voted_securely

    def late(admitted: Any, request: Any, asking: Any, entropy: Any) -> Released:
        for unit in admitted.site.units:
            assert unit is not None
        return real(admitted, request, asking, entropy)

    patch.setattr("cloister.client.round.voted_securely", late)


@mutant("shared votes", "summed votes asked again")
def vote_shares_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    """Under the same masks with other sites: the difference shows the noise."""
    real, seen = SecureExchange._mask, set[tuple[str, int]]()

    def redrawn(self: SecureExchange, charge: Charge, noised: Any) -> Released:
        released, place = real(self, charge, noised), (self.site, self.sum)
        if place not in seen:
            seen.add(place)
            return released
        assert self.keys.member is not None
        before = replace(self.keys.member, masked=self.sum - 1)
        self.keys.member, update = secure.mask_update(before, self.sum, self.adapter, noised())
        return Released(update.to_bytes(), released.head)

    patch.setattr(SecureExchange, "_mask", redrawn)


@mutant("shared votes", "masked counts")
def counts_without_masks(patch: pytest.MonkeyPatch) -> None:
    """The sum is right, and each site's counts are there with a share of the noise alone."""
    for module in (participant, unmasking):
        patch.setattr(module, "mask", lambda seed, count, bits: np.zeros(count, dtype=np.uint32))
