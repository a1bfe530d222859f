"""Broken private evaluations with shared noise: shares too small, of some statistics, or free."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloister.client import asked_charge, evaluating
from cloister.ledger.charge import Charge
from cloister.privacy import evaluation_release
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.shared_noise import SharedNoise
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import (
    answering_another,
    looking_first,
    redrawn,
    same_own_masks,
    same_shared_masks,
    silent_later,
    trusting,
    unmasked,
)
from tests.support.mutants.votes import seeded_noise

Integers = NDArray[np.int64]


@mutant("shared evaluations", "share of evaluations")
def evaluation_shares_for_all_sites(patch: pytest.MonkeyPatch) -> None:
    """σ/√K at each site: enough while nobody is missing and nobody colludes."""
    real = Plan.shared_evaluation_noise

    def fewer(self: Plan, values: int) -> SharedNoise:
        noise, sharing = real(self, values), self.sharing
        assert sharing is not None
        return replace(noise, share=noise.share * math.sqrt(sharing.honest / sharing.sites))

    patch.setattr(Plan, "shared_evaluation_noise", fewer)


@mutant("shared evaluations", "noise of summed evaluations")
def evaluation_shares_halved(patch: pytest.MonkeyPatch) -> None:
    def half(deviation: float, count: int, entropy: Entropy) -> Integers:
        return discrete_gaussian(deviation / 2, count, entropy)

    patch.setattr(evaluation_release, "discrete_gaussian", half)


@mutant("shared evaluations", "noise of summed evaluations")
def denominators_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    """The counts of right and wrong units, whose sum is the denominator of accuracy."""

    def but_two(deviation: float, count: int, entropy: Entropy) -> Integers:
        drawn = discrete_gaussian(deviation, count, entropy)
        drawn[:2] = 0
        return drawn

    patch.setattr(evaluation_release, "discrete_gaussian", but_two)


@mutant("shared evaluations", "summed statistics and their noise")
def one_site_of_a_sum_without_noise(patch: pytest.MonkeyPatch) -> None:
    """A site without held-out units sends zeros: the others' noise is what it was."""
    real = evaluating.release_evaluation_share

    def silent(clipped: Any, noise: SharedNoise, entropy: Entropy) -> Integers:
        (own,) = clipped.tensors
        return real(clipped, noise, entropy) if own.any() else own.numpy()

    patch.setattr(evaluating, "release_evaluation_share", silent)


@mutant("shared evaluations", "summed statistics and their noise")
def evaluation_shares_that_cancel_in_a_denominator(patch: pytest.MonkeyPatch) -> None:
    """Each count has a whole share; that of right and wrong units together has none."""

    def cancelling(deviation: float, count: int, entropy: Entropy) -> Integers:
        drawn = discrete_gaussian(deviation, count, entropy)
        drawn[1] = -drawn[0]
        return drawn

    patch.setattr(evaluation_release, "discrete_gaussian", cancelling)


@mutant("shared evaluations", "charges of summed evaluations")
def summed_evaluations_charged_as_training(patch: pytest.MonkeyPatch) -> None:
    def as_training(**fields: Any) -> Charge:
        return Charge(**{**fields, "kind": ReleaseKind.TRAINING})

    patch.setattr(asked_charge, "Charge", as_training)


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
