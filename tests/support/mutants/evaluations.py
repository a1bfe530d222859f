"""Broken private evaluations: of the wrong units, too long, under-noised, or not charged."""

import secrets
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cloister.client import evaluating
from cloister.client import round as site_round
from cloister.client.site import Site
from cloister.data.held_out import HeldOut
from cloister.data.unit_hash import mark_of
from cloister.deployment.site.records import SiteRecords
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.privacy import evaluation_release
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.entropy import Entropy
from cloister.privacy.evaluations import BOUND
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.training import held_out_sum as summing
from cloister.training.units import singles
from tests.support.entropy import FromNormals
from tests.support.mutants.answers import reply_is
from tests.support.mutants.own import (
    Free,
    answering_another_free,
    charged_as_training,
    halved,
    redrawn_after_a_cut,
    redrawn_again,
    redrawn_later,
    seeded_noise,
    uncharged_after,
    unlisted,
    without_noise,
)
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import looking_first, with_all_units

Floats = np.ndarray


def _sum_of(vectors: Floats) -> ClippedSum:
    grid = grid_of(BOUND)
    steps = torch.from_numpy(np.rint(vectors.astype(np.float64) / grid).astype(np.int64))
    return ClippedSum((steps.sum(dim=0),), BOUND)


@mutant("evaluations", "sides of units")
def held_out_units_trained_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SiteRecords, "trained_on", lambda self, held_out: self)


@mutant("evaluations", "sides of units")
def another_share_held_out(patch: pytest.MonkeyPatch) -> None:
    def half(self: HeldOut, digest: bytes) -> bool:
        return mark_of(digest, self.key, "held-out") < int(self.share * 2**63)

    patch.setattr(HeldOut, "holds", half)


@mutant("evaluations", "influence of a held-out unit")
def statistics_not_clipped(patch: pytest.MonkeyPatch) -> None:
    def whole(vectors: Floats, scales: Floats, grid: float | None = None) -> ClippedSum:
        return _sum_of(vectors * scales)

    patch.setattr(summing, "clipped_statistics", whole)


@mutant("evaluations", "influence of a held-out unit")
def statistics_clipped_one_by_one(patch: pytest.MonkeyPatch) -> None:
    def each(vectors: Floats, scales: Floats, grid: float | None = None) -> ClippedSum:
        return _sum_of(np.clip(vectors * scales, -BOUND, BOUND))

    patch.setattr(summing, "clipped_statistics", each)


@mutant("evaluations", "direction of statistics")
def statistics_clipped_by_the_largest_alone(patch: pytest.MonkeyPatch) -> None:
    """Within the bound, but a ratio of what is left is not the unit's own."""

    def each(vectors: Floats, scales: Floats, grid: float | None = None) -> ClippedSum:
        most = BOUND / np.sqrt(vectors.shape[1])
        return _sum_of(np.clip(vectors * scales, -most, most))

    patch.setattr(summing, "clipped_statistics", each)


@mutant("evaluations", "statistics that are not finite")
def one_unit_s_nan_takes_all_others_away(patch: pytest.MonkeyPatch) -> None:
    real = summing.clipped_statistics

    def all_or_none(vectors: Floats, scales: Floats, grid: float | None = None) -> ClippedSum:
        return real(vectors if np.isfinite(vectors).all() else 0 * scales[None], scales, grid)

    patch.setattr(summing, "clipped_statistics", all_or_none)


@mutant("evaluations", "influence of a held-out unit")
def a_person_s_held_out_records_counted_singly(patch: pytest.MonkeyPatch) -> None:
    real = summing.held_out_sum

    def split(
        network: Any, task: Any, units: Any, longest: int, grid: float | None = None
    ) -> ClippedSum:
        return real(network, task, singles([e for unit in units for e in unit]), longest, grid)

    patch.setattr(summing, "held_out_sum", split)


@mutant("evaluations", "many held-out units")
def held_out_units_beyond_the_first_64_count_twice(patch: pytest.MonkeyPatch) -> None:
    real = summing.held_out_sum

    def more(
        network: Any, task: Any, units: Any, longest: int, grid: float | None = None
    ) -> ClippedSum:
        return real(network, task, [*units, *units[summing.BLOCK :]], longest, grid)

    patch.setattr(summing, "held_out_sum", more)


@mutant("evaluations", "failing held-out unit")
def a_held_out_unit_that_fails_ends_the_evaluation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(summing, "alone", lambda compute, example, *rest: compute(example))


@mutant("evaluations", "noise of evaluations")
def evaluation_noise_halved(patch: pytest.MonkeyPatch) -> None:
    halved(patch, evaluation_release)


@mutant("evaluations", "noise of evaluations")
def denominators_without_noise(patch: pytest.MonkeyPatch) -> None:
    """The counts of right and wrong units, whose sum is the denominator of accuracy."""
    without_noise(patch, evaluation_release, 2)


@mutant("evaluations", "noise of evaluations")
def evaluation_noise_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    """Of the right size, and charged as private; who knows the study can take it off."""
    seeded_noise(patch)


@mutant("evaluations", "noise of evaluations")
def evaluations_divided_by_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    """The mean of the held-out units, whose number the coordinator then learns."""
    real = evaluating.held_out_sum

    def mean(network: Any, task: Any, units: Any, longest: int) -> ClippedSum:
        total = real(network, task, units, longest)
        return ClippedSum(tuple(t // max(len(units), 1) for t in total.tensors), BOUND)

    patch.setattr(evaluating, "held_out_sum", mean)


@mutant("evaluations", "noise beside training")
def an_evaluation_with_the_noise_of_its_round_s_update(patch: pytest.MonkeyPatch) -> None:
    """The difference of both, each over its deviation, is free of noise."""
    drawn: dict[tuple[str, int], int] = {}

    def of_the_round(self: Site, plan: Plan, number: int) -> Entropy:
        seed = drawn.setdefault((self.ledger.public_key, number), secrets.randbits(128))
        return FromNormals(np.random.default_rng(seed).standard_normal)

    patch.setattr(Site, "entropy", of_the_round)


@mutant("evaluations", "charges beside training")
def an_evaluation_free_in_a_round_that_was_trained(patch: pytest.MonkeyPatch) -> None:
    """The ledger asks whether the round was charged, and not for what."""
    real = Ledger.reserve

    def reserve(self: Ledger, charge: Charge) -> Any:
        trained = self._history.reserved(charge.study, charge.round, ReleaseKind.TRAINING)
        if charge.kind is ReleaseKind.EVALUATION and trained is not None:
            return Free()
        return real(self, charge)

    patch.setattr(Ledger, "reserve", reserve)


@mutant("evaluations", "looks at the other side")
def evaluations_of_trained_units_too(patch: pytest.MonkeyPatch) -> None:
    with_all_units(patch, evaluating, "_scored", "held_out")


@mutant("evaluations", "looks at the other side")
def rounds_that_train_on_held_out_units_too(patch: pytest.MonkeyPatch) -> None:
    with_all_units(patch, site_round, "_trained", "units")


@mutant("evaluations", "evaluations asked again")
def evaluation_noise_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    redrawn_again(patch, ReleaseKind.EVALUATION)


@mutant("evaluations", "evaluations asked again")
def evaluation_noise_redrawn_after_a_later_round(patch: pytest.MonkeyPatch) -> None:
    redrawn_later(patch)


@mutant("evaluations", "evaluations asked again")
def scores_of_another_adapter_in_an_evaluation_that_was_released(
    patch: pytest.MonkeyPatch,
) -> None:
    answering_another_free(patch)


@mutant("evaluations", "evaluations asked again")
def noise_of_an_evaluation_that_was_cut_off_redrawn(patch: pytest.MonkeyPatch) -> None:
    redrawn_after_a_cut(patch)


@mutant("evaluations", "evaluations asked again")
def evaluations_that_the_plan_does_not_list(patch: pytest.MonkeyPatch) -> None:
    unlisted(patch, evaluating, "check_listed")


@mutant("evaluations", "charge before evaluations")
def evaluations_charged_after_units_are_scored(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "evaluate", "held_out")


@mutant("evaluations", "charges of evaluations")
def evaluations_charged_as_training(patch: pytest.MonkeyPatch) -> None:
    charged_as_training(patch)


@mutant("evaluations", "charges of evaluations")
def evaluations_not_charged(patch: pytest.MonkeyPatch) -> None:
    uncharged_after(patch, ReleaseKind.EVALUATION, 0)


@mutant("evaluations", "statistics and their noise")
def evaluation_noise_that_leaves_out_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    """Right and wrong units have noise, and their sum, the units of a class, has none."""

    def cancelling(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        exact = clipped.tensors[0] * clipped.grid
        drawn = add_noise(clipped, noise, entropy).tensors[0] - exact
        drawn[1] = -drawn[0]
        return NoisedSum(((exact + drawn).float(),))

    patch.setattr(evaluation_release, "add_noise", cancelling)


@mutant("evaluations", "answers to evaluations")
def epsilon_carries_the_number_of_held_out_units(patch: pytest.MonkeyPatch) -> None:
    reply_is(patch, lambda at, reply: replace(reply, epsilon=float(len(at.held_out or ()))))


@mutant("evaluations", "answers to evaluations")
def entries_of_evaluations_tell_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    """What a site's certificate hands to everybody."""
    append, real, count = Ledger._append, site_round.evaluate, [0]

    def noted(self: Ledger, *given: Any, **fields: Any) -> Any:
        return append(self, *given, **fields, records=count[0])

    def counted(admitted: Any, request: Any) -> Any:
        count[0] = len(admitted.site.held_out or ())
        return real(admitted, request)

    patch.setattr(Ledger, "_append", noted)
    patch.setattr(site_round, "evaluate", counted)
