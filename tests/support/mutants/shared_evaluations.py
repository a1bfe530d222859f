"""Broken private evaluations with shared noise: shares too small, of some statistics, or free."""

import pytest

from cloister.client import evaluating
from cloister.privacy import evaluation_release
from tests.support.mutants.own import charged_as_training, seeded_noise
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
    with_all_units,
)


@mutant("shared evaluations", "share of evaluations")
def evaluation_shares_for_all_sites(patch: pytest.MonkeyPatch) -> None:
    shares_for_all_sites(patch, "shared_evaluation_noise")


@mutant("shared evaluations", "noise of summed evaluations")
def evaluation_shares_halved(patch: pytest.MonkeyPatch) -> None:
    halved_shares(patch, evaluation_release)


@mutant("shared evaluations", "noise of summed evaluations")
def denominators_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    """The counts of right and wrong units, whose sum is the denominator of accuracy."""
    shares_without(patch, evaluation_release, 2)


@mutant("shared evaluations", "summed statistics and their noise")
def one_site_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    """A site without held-out units sends zeros: the others' noise is what it was."""
    silent_later(patch, evaluating, "release_evaluation_share", 0)


@mutant("shared evaluations", "summed statistics and their noise")
def evaluation_shares_that_cancel_in_a_denominator(patch: pytest.MonkeyPatch) -> None:
    """Each count has a whole share; that of right and wrong units together has none."""
    cancelling_shares(patch, evaluation_release)


@mutant("shared evaluations", "charges of summed evaluations")
def summed_evaluations_charged_as_training(patch: pytest.MonkeyPatch) -> None:
    charged_as_training(patch)


@mutant("shared evaluations", "share of evaluations")
def evaluation_shares_that_trust_every_site(patch: pytest.MonkeyPatch) -> None:
    trusting(patch)


@mutant("shared evaluations", "noise of summed evaluations")
def evaluation_shares_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    seeded_noise(patch)


@mutant("shared evaluations", "charge before summed evaluations")
def summed_evaluations_charged_after_units_are_scored(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "evaluated_securely", "held_out")


@mutant("shared evaluations", "summed evaluations asked again")
def evaluation_shares_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    redrawn(patch)


@mutant("shared evaluations", "summed evaluations asked again")
def scores_of_another_adapter_in_a_round_that_was_released(patch: pytest.MonkeyPatch) -> None:
    answering_another(patch)


@mutant("shared evaluations", "masks of summed evaluations")
def statistics_without_masks(patch: pytest.MonkeyPatch) -> None:
    unmasked(patch)


@mutant("shared evaluations", "masks of summed evaluations")
def statistics_under_the_same_shared_masks_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_shared_masks(patch)


@mutant("shared evaluations", "own masks of summed evaluations")
def statistics_under_the_same_own_mask_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_own_masks(patch)


@mutant("shared evaluations", "summed statistics and their noise")
def a_site_without_held_out_units_adds_no_share_from_the_third_round_on(
    patch: pytest.MonkeyPatch,
) -> None:
    silent_later(patch, evaluating, "release_evaluation_share", 2)


@mutant("shared evaluations", "other side of summed evaluations")
def summed_evaluations_of_trained_units_too(patch: pytest.MonkeyPatch) -> None:
    with_all_units(patch, evaluating, "_scored", "held_out")
