"""Broken training paths that bypass a sound mechanism."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cloister.adapter.tensors import Adapter
from cloister.audit import observed
from cloister.privacy import mechanism
from cloister.privacy.clipping import ClippedSum, clip_and_sum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.training import local
from tests.support.entropy import FromNormals, normals
from tests.support.mutants.registry import clipping_is, labelled, mutant, noise_is

Array = np.ndarray


def round_is(patch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """Every round's named arguments are changed before it runs."""
    sound = local.local_update

    def broken(*given: Any, **named: Any) -> Adapter:
        change(named)
        return sound(*given, **named)

    patch.setattr(observed, "local_update", broken)


def quiet(factor: float) -> FromNormals:
    return FromNormals(lambda count: factor * normals(count))


def batches_remembered(patch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches drawn from now on."""
    sizes: list[int] = []
    draw = mechanism.Mechanism.draw

    def remembered(self: mechanism.Mechanism, count: int) -> Array:
        drawn = draw(self, count)
        sizes.append(len(drawn))
        return drawn

    patch.setattr(mechanism.Mechanism, "draw", remembered)
    return sizes


@mutant("empty site", "noise in training")
def empty_batches_without_noise(patch: pytest.MonkeyPatch) -> None:
    sizes = batches_remembered(patch)
    noise_is(patch, lambda c, s, e: add_noise(c, s if sizes[-1] else 0.0, e))


def weak_step(patch: pytest.MonkeyPatch, is_weak: Callable[[mechanism.Mechanism], bool]) -> None:
    release = mechanism.Mechanism.release

    def broken(self: mechanism.Mechanism, clipped: ClippedSum) -> NoisedSum:
        sound = release(self, clipped)
        return add_noise(clipped, 0.0, OsEntropy()) if is_weak(self) else sound

    patch.setattr(mechanism.Mechanism, "release", broken)


@mutant("empty site", "noise in training")
def first_step_without_noise(patch: pytest.MonkeyPatch) -> None:
    weak_step(patch, lambda gate: gate._released == 1)


@mutant("empty site", "noise in training")
def last_step_without_noise(patch: pytest.MonkeyPatch) -> None:
    weak_step(patch, lambda gate: gate._released == gate.plan.local_steps)


@mutant("empty site", "noise in training")
def a_round_run_again_without_noise(patch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()

    def change(named: dict[str, Any]) -> None:
        if named["round_number"] in seen:
            named["entropy"] = quiet(0.0)
        seen.add(named["round_number"])

    round_is(patch, change)


@mutant("empty site", "noise in training")
def noise_seeded_by_the_round_s_number(patch: pytest.MonkeyPatch) -> None:
    def change(named: dict[str, Any]) -> None:
        generator = np.random.default_rng(named["round_number"])
        named["entropy"] = FromNormals(generator.standard_normal)

    round_is(patch, change)


@mutant("empty site", "noise in training")
def less_noise_in_later_rounds(patch: pytest.MonkeyPatch) -> None:
    def change(named: dict[str, Any]) -> None:
        if named["round_number"] > 2:
            named["entropy"] = quiet(0.7)

    round_is(patch, change)


@mutant("empty site", "steps taken")
def a_step_left_out_at_an_empty_site(patch: pytest.MonkeyPatch) -> None:
    """Skips a step at a site without records, so its answer reveals that it has none."""
    sound = local.local_update

    def broken(
        network: Any, task: Any, units: Any, start: Any, plan: Any, *rest: Any, **named: Any
    ) -> Adapter:
        if not len(units):
            plan = replace(plan, local_steps=max(1, plan.local_steps - 1))
        return sound(network, task, units, start, plan, *rest, **named)

    patch.setattr(observed, "local_update", broken)


@mutant("few records", "noise beside records")
def noise_for_each_physical_batch(patch: pytest.MonkeyPatch) -> None:
    def noisy(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        total = clip_and_sum(per_unit, bound)
        draws = [OsEntropy().gaussian(bound / total.grid, t.numel()) for t in total.tensors]
        return ClippedSum(
            tuple(
                t + torch.from_numpy(n).view(t.shape)
                for t, n in zip(total.tensors, draws, strict=True)
            ),
            bound,
        )

    clipping_is(patch, noisy)


@mutant("few records", "noise beside records")
def divisor_of_the_realised_batch(patch: pytest.MonkeyPatch) -> None:
    sizes = batches_remembered(patch)

    def divided(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        noised = add_noise(clipped, sigma, entropy)
        return NoisedSum(tuple(t * (6 / max(sizes[-1], 1)) for t in noised.tensors))

    noise_is(patch, divided)


@mutant("few records", "batches in training")
def batches_cut_in_training(patch: pytest.MonkeyPatch) -> None:
    """At most so many units as a machine has memory for."""
    sound = local.Mechanism

    class Cut(sound):
        def draw(self, count: int) -> Array:
            return super().draw(count)[:3]

    patch.setattr(local, "Mechanism", Cut)


@mutant("real batches", "real batches")
def long_units_at_three_times_the_rate(patch: pytest.MonkeyPatch) -> None:
    sound, draw = local.local_update, mechanism.Mechanism.draw
    lengths: list[Array] = [np.zeros(0)]

    def noted(network: Any, task: Any, units: Any, *rest: Any, **named: Any) -> Adapter:
        lengths.append(np.array([sum(len(e.input_ids) for e in unit) for unit in iter(units)]))
        return sound(network, task, units, *rest, **named)

    def drawn(self: mechanism.Mechanism, count: int) -> Array:
        batch = draw(self, count)
        long = np.flatnonzero(lengths[-1] > np.median(lengths[-1])) if count > 1 else []
        return np.union1d(batch, [i for i in long if i in set(draw_again(self, count))]).astype(int)

    def draw_again(self: mechanism.Mechanism, count: int) -> Array:
        return mechanism.poisson_sample(count, min(1.0, 2 * self.plan.sample_rate), OsEntropy())

    patch.setattr(observed, "local_update", noted)
    patch.setattr(mechanism.Mechanism, "draw", drawn)


@mutant("real batches", "sums of real batches")
def large_batches_clipped_at_twice_the_bound(patch: pytest.MonkeyPatch) -> None:
    sound = local.clipped_gradient_sum

    def broken(
        network: Any, task: Any, units: Any, bound: float, *rest: Any, **named: Any
    ) -> ClippedSum:
        if len(units) <= 16:
            return sound(network, task, units, bound, *rest, **named)
        return labelled(sound(network, task, units, 2 * bound, *rest, **named), bound)

    patch.setattr(local, "clipped_gradient_sum", broken)


@mutant("updates", "update from releases")
def momentum_of_gradients_without_noise(patch: pytest.MonkeyPatch) -> None:
    clean: list[ClippedSum] = []
    sound = local.clipped_gradient_sum

    def remembered(*given: Any, **named: Any) -> ClippedSum:
        clean.append(sound(*given, **named))
        return clean[-1]

    def moved(delta: Adapter, bound: float | None) -> Adapter:
        added = Adapter(
            {
                name: value - 1e-3 * t.numpy().astype(np.float32) * np.float32(clean[-1].grid)
                for (name, value), t in zip(delta.items(), clean[-1].tensors, strict=True)
            }
        )
        return SOUND_CLIP(added, bound)

    patch.setattr(local, "clipped_gradient_sum", remembered)
    patch.setattr(local, "clip_update", moved)


SOUND_CLIP = local.clip_update


@mutant("updates", "update from releases")
def delta_computed_before_the_noise(patch: pytest.MonkeyPatch) -> None:
    """The optimizer steps on noise, and what is sent is the mean of clipped gradients."""
    clean: list[ClippedSum] = []
    sound = local.clipped_gradient_sum

    def remembered(*given: Any, **named: Any) -> ClippedSum:
        clean.append(sound(*given, **named))
        return clean[-1]

    def replaced(delta: Adapter, bound: float | None) -> Adapter:
        return SOUND_CLIP(
            Adapter(
                {
                    name: t.numpy().astype(np.float32) * np.float32(clean[-1].grid)
                    for name, t in zip(delta, clean[-1].tensors, strict=True)
                }
            ),
            bound,
        )

    patch.setattr(local, "clipped_gradient_sum", remembered)
    patch.setattr(local, "clip_update", replaced)


@mutant("updates", "update bound")
def update_not_clipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local, "clip_update", lambda delta, bound: delta)
