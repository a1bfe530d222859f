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
