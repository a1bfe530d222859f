"""Broken clipping: a unit moves a sum by more than the bound, or depending on other units."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cloister.privacy.clipping import ClippedSum, clip_and_sum, grid_of
from cloister.training import gradients
from tests.support.mutants.registry import clipping_is, labelled, mutant

Rows = Sequence[Tensor]


def norms_of(per_unit: Rows) -> Tensor:
    return torch.stack([g.flatten(1).square().sum(1) for g in per_unit]).sum(0).sqrt()


def scaled_by(per_unit: Rows, norms: Tensor, bound: float) -> ClippedSum:
    """Clipped to the bound in another norm."""
    factors = (bound * 0.999 / norms.clamp_min(1e-30)).clamp_max(1.0) / grid_of(bound)
    sums = [
        (g.double() * factors.double().view(-1, *[1] * (g.dim() - 1))).round().sum(0).long()
        for g in per_unit
    ]
    return ClippedSum(tuple(sums), bound)


@mutant("clipping", "influence")
def clip_off(patch: pytest.MonkeyPatch) -> None:
    clipping_is(patch, lambda g, bound: labelled(clip_and_sum(g, 1e3), bound))


@mutant("clipping", "influence")
def clip_one_per_cent_too_long(patch: pytest.MonkeyPatch) -> None:
    clipping_is(patch, lambda g, bound: labelled(clip_and_sum(g, bound * 1.01), bound))


@mutant("clipping", "influence")
def clip_each_tensor(patch: pytest.MonkeyPatch) -> None:
    clipping_is(
        patch,
        lambda g, bound: ClippedSum(tuple(clip_and_sum([t], bound).tensors[0] for t in g), bound),
    )


@mutant("clipping", "influence")
def clip_by_the_largest_value(patch: pytest.MonkeyPatch) -> None:
    clipping_is(
        patch,
        lambda g, bound: scaled_by(
            g, torch.stack([t.flatten(1).abs().amax(1) for t in g]).amax(0), bound
        ),
    )


@mutant("clipping", "influence")
def clip_by_the_sum_of_values(patch: pytest.MonkeyPatch) -> None:
    """Clips in another norm: the influence is within the bound, but not the promised mechanism."""
    clipping_is(
        patch,
        lambda g, bound: scaled_by(
            g, torch.stack([t.flatten(1).abs().sum(1) for t in g]).sum(0), bound
        ),
    )


@mutant("clipping", "influence")
def head_left_out_of_the_norm(patch: pytest.MonkeyPatch) -> None:
    clipping_is(patch, lambda g, bound: scaled_by(g, norms_of(g[:-2] or g), bound))


@mutant("clipping", "companions")
def clip_after_aggregation(patch: pytest.MonkeyPatch) -> None:
    """The batch's sum is clipped, not each unit's part: several bounds long before, one after."""
    clipping_is(patch, lambda g, bound: clip_and_sum([t.sum(0, keepdim=True) for t in g], bound))


@mutant("clipping", "influence")
def clip_each_record_of_a_person(patch: pytest.MonkeyPatch) -> None:
    summed = gradients._group_sum
    patch.setattr(
        gradients,
        "_group_sum",
        lambda network, task, units, *given: summed(
            network, task, [(record,) for unit in units for record in unit], *given
        ),
    )


@mutant("clipping", "influence alone")
def lone_units_not_clipped(patch: pytest.MonkeyPatch) -> None:
    clipping_is(
        patch, lambda g, bound: labelled(clip_and_sum(g, bound if len(g[0]) > 1 else 1e3), bound)
    )


@mutant("clipping", "influence at the plan's bound")
def clip_at_small_bounds_only(patch: pytest.MonkeyPatch) -> None:
    clipping_is(
        patch, lambda g, bound: labelled(clip_and_sum(g, bound if bound < 0.1 else 1e3), bound)
    )


@mutant("clipping", "companions")
def mean_over_the_batch(patch: pytest.MonkeyPatch) -> None:
    def broken(per_unit: Rows, bound: float) -> ClippedSum:
        share = 1 / len(per_unit[0])
        return labelled(clip_and_sum([g * share for g in per_unit], bound * share), bound)

    clipping_is(patch, broken)


@mutant("clipping", "companions")
def bound_by_the_batch_s_mean_length(patch: pytest.MonkeyPatch) -> None:
    def broken(per_unit: Rows, bound: float) -> ClippedSum:
        norms = norms_of(per_unit)
        lowered = min(1.0, float(norms.min() / norms.mean()))
        return labelled(clip_and_sum(per_unit, bound * lowered), bound)

    clipping_is(patch, broken)


@mutant("clipping", "clipped rows")
def short_gradients_stretched_to_the_bound(patch: pytest.MonkeyPatch) -> None:
    def broken(per_unit: Rows, bound: float) -> ClippedSum:
        norms = norms_of(per_unit)
        longer = [g * (1e3 / norms).view(-1, *[1] * (g.dim() - 1)) for g in per_unit]
        return clip_and_sum(longer, bound)

    clipping_is(patch, broken)


@mutant("clipping", "poisoned records")
def nan_passes(patch: pytest.MonkeyPatch) -> None:
    def broken(per_unit: Rows, bound: float) -> ClippedSum:
        factors = (bound * (1 - 1e-5) / norms_of(per_unit)).clamp_max(1.0) / grid_of(bound)
        sums = [torch.einsum("u,u...->...", factors, g).double() for g in per_unit]
        return ClippedSum(tuple(s.nan_to_num(nan=2.0**40).round().long() for s in sums), bound)

    clipping_is(patch, broken)
