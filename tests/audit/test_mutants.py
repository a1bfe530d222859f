"""The audit finds every broken mechanism of `support.mutants`.

Two laws are put to the path that training takes, sound and broken: what one unit can change in a
clipped sum, and how much noise an update carries.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cloister.data.records import TextRecord
from cloister.privacy import mechanism
from cloister.privacy.clipping import ClippedSum, clip_and_sum, grid_of
from cloister.privacy.entropy import Entropy, OsEntropy, SeededEntropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.training import gradients, local
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import UnitExamples, singles
from cloister.training.workspace import Workspace
from tests.support.entropy import FromNormals
from tests.support.ledgers import small_plan
from tests.support.studies import NOTES, small_workspace

BOUND = 1e-3  # far below these gradients' norms: every unit contributes at full length
SHAPES = candidates(32, 256)
ALPHA = 1e-6  # level of the noise law: one false alarm in a million runs


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Workspace:
    opened = small_workspace(bert)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in opened.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return opened


@pytest.fixture(scope="module")
def units(workspace: Workspace) -> list[UnitExamples]:
    """Persons with one to three records, of skewed lengths."""
    records = [TextRecord(text, label) for label, texts in NOTES.items() for text in texts]
    long = TextRecord("chest pain and severe rash and fever and mild cough", "cardiology")
    one, two, three, *rest = workspace.encode([*records, long])
    return [(one,), (two, three), tuple(rest[:3]), (rest[-1],)]


# --- what one unit can change ---------------------------------------------------------------


def influence(workspace: Workspace, units: Sequence[UnitExamples]) -> float:
    """The most that adding any of the units to the others moves the sum, over the bound."""

    def summed(chosen: Sequence[UnitExamples]) -> Tensor:
        total = clipped_gradient_sum(workspace.network, workspace.task, chosen, BOUND, SHAPES)
        assert total.bound == BOUND
        return torch.cat([t.flatten() for t in total.tensors]).double() * total.grid

    with per_record_hooks(workspace.network):
        whole = summed(units)
        without = [summed([*units[:i], *units[i + 1 :]]) for i in range(len(units))]
    return max(float((whole - other).norm()) for other in without) / BOUND


def labelled(total: ClippedSum, bound: float) -> ClippedSum:
    """A sum that states another bound than it was clipped to."""
    scale = total.grid / grid_of(bound)
    return ClippedSum(tuple((t.double() * scale).round().long() for t in total.tensors), bound)


def each_tensor_for_itself(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
    return ClippedSum(tuple(clip_and_sum([g], bound).tensors[0] for g in per_unit), bound)


def not_at_all(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
    return labelled(clip_and_sum(per_unit, 1e3), bound)


def to_the_mean(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
    """Scaled so that the mean norm is the bound, as a bound on the average would."""
    norms = torch.stack([g.flatten(1).square().sum(1) for g in per_unit]).sum(0).sqrt()
    scaled = [g * (bound / norms.mean()) for g in per_unit]
    return labelled(clip_and_sum(scaled, 1e3), bound)


def test_a_unit_s_influence_is_at_most_the_bound(
    workspace: Workspace, units: list[UnitExamples]
) -> None:
    assert 0.99 < influence(workspace, units) <= 1


@pytest.mark.parametrize(
    "mutant", [each_tensor_for_itself, not_at_all, to_the_mean], ids=lambda m: m.__name__
)
def test_clipping_that_is_broken_is_caught(
    workspace: Workspace,
    units: list[UnitExamples],
    mutant: Callable[..., ClippedSum],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradients, "clip_and_sum", lambda g, bound, grid: mutant(g, bound))
    assert influence(workspace, units) > 1.01


def test_a_person_s_records_clipped_one_by_one_are_caught(
    workspace: Workspace, units: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    summed = gradients.clipped_gradient_sum

    def one_by_one(network, task, units, *rest):  # type: ignore[no-untyped-def]
        records = [(example,) for unit in units for example in unit]
        return summed(network, task, records, *rest)

    monkeypatch.setattr(sys.modules[__name__], "clipped_gradient_sum", one_by_one)
    assert influence(workspace, units) > 1.01


# --- how much noise an update carries -------------------------------------------------------

STEPS = 4


def noise_plan() -> Plan:
    """Noise so large that 96 records of at most the bound do not show in it."""
    return dataclasses.replace(
        small_plan(noise_multiplier=1e4),
        public_records=12,
        expected_batch_size=6,
        local_steps=STEPS,
        max_grad_norm=BOUND,
        max_update_norm=1e6,
    )


def update(workspace: Workspace, units: list[UnitExamples], entropy: Entropy) -> np.ndarray:
    delta = local.local_update(
        workspace.network,
        workspace.task,
        units,
        workspace.start,
        noise_plan(),
        TrainingConfig(
            mode="local-steps",
            expected_batch_size=6,
            local_steps=STEPS,
            learning_rate=1.0,
            schedule="constant",
            physical_batch_tokens=32,
        ),
        round_number=1,
        entropy=entropy,
    )
    return np.concatenate([value.ravel() for value in delta.values()]).astype(np.float64)


def carries_the_planned_noise(delta: np.ndarray) -> bool:
    """χ² of all coordinates against STEPS draws of σ·C over the divisor."""
    plan = noise_plan()
    assert plan.max_grad_norm is not None
    step = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    statistic = float(np.square(delta).sum()) / (STEPS * step**2)
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], len(delta))
    return bool(low <= statistic <= high)


@pytest.fixture(scope="module")
def many(workspace: Workspace) -> list[UnitExamples]:
    """Eight times as many records as the site declares: no realised batch is near the divisor."""
    records = [TextRecord(text, label) for label, texts in NOTES.items() for text in texts]
    return singles(workspace.encode((records * 11)[:96]))


def test_an_update_carries_the_planned_noise(
    workspace: Workspace, many: list[UnitExamples]
) -> None:
    assert carries_the_planned_noise(update(workspace, many, OsEntropy()))
    assert carries_the_planned_noise(update(workspace, [], OsEntropy()))


class Repeating(FromNormals):
    """One seed for every step's noise."""

    def normal(self, count: int) -> np.ndarray:
        return np.random.default_rng(7).standard_normal(count)


@pytest.mark.nightly
def test_the_same_noise_at_every_step_is_caught(
    workspace: Workspace, many: list[UnitExamples]
) -> None:
    assert not carries_the_planned_noise(update(workspace, many, Repeating()))


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.8])
def test_too_little_noise_is_caught(
    workspace: Workspace, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weaker(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        return add_noise(clipped, sigma * factor, entropy)

    monkeypatch.setattr(mechanism, "add_noise", weaker)
    # 563 parameters an update: a dozen of them tell 0.8 from 1 at this level beyond doubt.
    updates = [update(workspace, [], OsEntropy()) for _ in range(12)]
    assert not carries_the_planned_noise(np.concatenate(updates))


@pytest.mark.nightly
def test_noise_for_each_physical_batch_is_caught(
    workspace: Workspace, many: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        total = clip_and_sum(per_unit, bound)
        deviation = 1e4 * bound / total.grid
        noise = [OsEntropy().gaussian(deviation, t.numel()) for t in total.tensors]
        return ClippedSum(
            tuple(
                t + torch.from_numpy(n).view(t.shape)
                for t, n in zip(total.tensors, noise, strict=True)
            ),
            bound,
        )

    monkeypatch.setattr(gradients, "clip_and_sum", lambda g, bound, grid: noisy(g, bound))
    monkeypatch.setattr(mechanism, "add_noise", lambda c, s, e: add_noise(c, 0.0, e))
    assert not carries_the_planned_noise(update(workspace, many, OsEntropy()))


@pytest.mark.nightly
def test_a_divisor_of_the_realised_batch_is_caught(
    workspace: Workspace, many: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    draw = mechanism.Mechanism.draw

    def remembered(self: mechanism.Mechanism, count: int) -> np.ndarray:
        drawn = draw(self, count)
        sizes.append(max(len(drawn), 1))
        return drawn

    def divided(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        noised = add_noise(clipped, sigma, entropy)
        return NoisedSum(tuple(t * (6 / sizes[-1]) for t in noised.tensors))

    monkeypatch.setattr(mechanism.Mechanism, "draw", remembered)
    monkeypatch.setattr(mechanism, "add_noise", divided)
    assert not carries_the_planned_noise(update(workspace, many, OsEntropy()))


def test_a_seeded_mechanism_is_not_private() -> None:
    assert not SeededEntropy(np.random.default_rng(0)).is_private
