"""Broken votes with shared noise: shares too small, of some counts, or charged as another kind."""

from typing import Any

import pytest

from cloister.client import asked_charge, voting
from cloister.ledger.charge import Charge
from cloister.privacy import vote_release
from cloister.privacy.release_kind import ReleaseKind
from cloister.training import vote_sum as summing
from tests.support.mutants.own import seeded_noise
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import (
    answering_another,
    cancelling_shares,
    halved_shares,
    looking_first,
    redrawn,
    same_own_masks,
    same_shared_masks,
    shares_for_all_sites,
    shares_without,
    silent_later,
    trusting,
    unmasked,
)
from tests.support.mutants.votes import unclipped


@mutant("shared votes", "share of votes")
def vote_shares_for_all_sites(patch: pytest.MonkeyPatch) -> None:
    shares_for_all_sites(patch, "shared_vote_noise")


@mutant("shared votes", "noise of summed votes")
def vote_shares_halved(patch: pytest.MonkeyPatch) -> None:
    halved_shares(patch, vote_release)


@mutant("shared votes", "noise of summed votes")
def one_count_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    shares_without(patch, vote_release, 1)


@mutant("shared votes", "summed counts and their noise")
def a_site_without_votes_adds_no_share(patch: pytest.MonkeyPatch) -> None:
    """It sends zeros under its mask: the others' noise is what it was."""
    silent_later(patch, voting, "release_vote_share", 0)


@mutant("shared votes", "summed counts and their noise")
def vote_shares_that_cancel_between_two_counts(patch: pytest.MonkeyPatch) -> None:
    cancelling_shares(patch, vote_release)


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
    trusting(patch)


@mutant("shared votes", "noise of summed votes")
def vote_shares_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    """Of the right size, and charged as private; who knows the study can take them off."""
    seeded_noise(patch)


@mutant("shared votes", "charge before summed votes")
def summed_votes_charged_after_they_are_counted(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "voted_securely", "units")


@mutant("shared votes", "summed votes asked again")
def vote_shares_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    redrawn(patch)


@mutant("shared votes", "summed votes asked again")
def summed_votes_for_other_candidates_in_a_round_that_was_released(
    patch: pytest.MonkeyPatch,
) -> None:
    answering_another(patch)


@mutant("shared votes", "masks of summed votes")
def counts_without_masks(patch: pytest.MonkeyPatch) -> None:
    unmasked(patch)


@mutant("shared votes", "masks of summed votes")
def counts_under_the_same_shared_masks_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_shared_masks(patch)


@mutant("shared votes", "own masks of summed votes")
def counts_under_the_same_own_mask_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_own_masks(patch)


@mutant("shared votes", "summed counts and their noise")
def a_site_without_votes_adds_no_share_from_the_third_round_on(patch: pytest.MonkeyPatch) -> None:
    silent_later(patch, voting, "release_vote_share", 2)
