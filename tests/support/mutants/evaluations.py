"""Broken private evaluations: of the wrong units, too long, under-noised, or not charged."""

from typing import Any

import numpy as np
import pytest
import torch

from cloister.client import asked_charge, evaluating
from cloister.client.site import Site
from cloister.data.held_out import HeldOut
from cloister.data.unit_hash import mark_of
from cloister.deployment.site.records import SiteRecords
from cloister.ledger.charge import Charge, Released
from cloister.ledger.ledger import Ledger
from cloister.privacy import evaluation_release
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.entropy import Entropy, SeededEntropy
from cloister.privacy.evaluations import BOUND
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.seeds import child_generator
from cloister.training import held_out_sum as summing
from cloister.training.units import singles
from tests.support.mutants.registry import mutant

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


@mutant("evaluations", "influence of a held-out unit")
def a_person_s_held_out_records_counted_singly(patch: pytest.MonkeyPatch) -> None:
    real = summing.held_out_sum

    def split(
        network: Any, task: Any, units: Any, longest: int, grid: float | None = None
    ) -> ClippedSum:
        return real(network, task, singles([e for unit in units for e in unit]), longest, grid)

    patch.setattr(summing, "held_out_sum", split)


@mutant("evaluations", "noise of evaluations")
def evaluation_noise_halved(patch: pytest.MonkeyPatch) -> None:
    def half(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        return add_noise(clipped, noise / 2, entropy)

    patch.setattr(evaluation_release, "add_noise", half)


@mutant("evaluations", "noise of evaluations")
def denominators_without_noise(patch: pytest.MonkeyPatch) -> None:
    """The counts of right and wrong units, whose sum is the denominator of accuracy."""

    def but_two(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        (noised,) = add_noise(clipped, noise, entropy).tensors
        noised[:2] = clipped.tensors[0][:2] * clipped.grid
        return NoisedSum((noised,))

    patch.setattr(evaluation_release, "add_noise", but_two)


@mutant("evaluations", "noise of evaluations")
def evaluation_noise_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    """Of the right size, and charged as private; who knows the study can take it off."""

    class Predictable(SeededEntropy):
        is_private = True

    def seeded(self: Site, plan: Plan, number: int) -> Predictable:
        return Predictable(child_generator(self.seed, "site", self.name, "round", number))

    patch.setattr(Site, "entropy", seeded)


@mutant("evaluations", "noise of evaluations")
def evaluations_divided_by_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    """The mean of the held-out units, whose number the coordinator then learns."""
    real = evaluating.held_out_sum

    def mean(network: Any, task: Any, units: Any, longest: int) -> ClippedSum:
        total = real(network, task, units, longest)
        return ClippedSum(tuple(t // max(len(units), 1) for t in total.tensors), BOUND)

    patch.setattr(evaluating, "held_out_sum", mean)


@mutant("evaluations", "evaluations asked again")
def evaluation_noise_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    real = Ledger.reserve

    def reserve(self: Ledger, charge: Charge) -> Any:
        granted = real(self, charge)
        if charge.kind is ReleaseKind.EVALUATION and isinstance(granted, Released):
            return _Free(granted.head)
        return granted

    patch.setattr(Ledger, "reserve", reserve)


@mutant("evaluations", "charges of evaluations")
def evaluations_charged_as_training(patch: pytest.MonkeyPatch) -> None:
    def as_training(**fields: Any) -> Charge:
        return Charge(**{**fields, "kind": ReleaseKind.TRAINING})

    patch.setattr(asked_charge, "Charge", as_training)


@mutant("evaluations", "charges of evaluations")
def evaluations_not_charged(patch: pytest.MonkeyPatch) -> None:
    real = Ledger.reserve

    def reserve(self: Ledger, charge: Charge) -> Any:
        return _Free("ab" * 32) if charge.kind is ReleaseKind.EVALUATION else real(self, charge)

    patch.setattr(Ledger, "reserve", reserve)


class _Free:
    """The right to release bytes that no entry has."""

    def __init__(self, head: str) -> None:
        self._head = head

    def release(self, payload: bytes) -> Released:
        return Released(payload, self._head)


@mutant("evaluations", "statistics and their noise")
def evaluation_noise_that_leaves_out_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    """Right and wrong units have noise, and their sum, the units of a class, has none."""

    def cancelling(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        exact = clipped.tensors[0] * clipped.grid
        drawn = add_noise(clipped, noise, entropy).tensors[0] - exact
        drawn[1] = -drawn[0]
        return NoisedSum(((exact + drawn).float(),))

    patch.setattr(evaluation_release, "add_noise", cancelling)
