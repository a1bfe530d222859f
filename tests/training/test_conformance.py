"""The auditor's first level: sound paths pass, each broken one is refuted by the check for it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cloister.data.nobody import nobody_s_records
from cloister.errors import UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy import clipping, mechanism
from cloister.privacy.clipping import ClippedSum, clip_and_sum, grid_of
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.tasks.build import record_kind
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.training import gradients, local
from cloister.training.config import TrainingConfig
from cloister.training.conformance import conformance
from cloister.training.units import UnitExamples, unit_examples
from cloister.training.workspace import Workspace, open_workspace
from tests.support.ledgers import small_plan
from tests.support.tables import hold

Audited = tuple[Workspace, tuple[UnitExamples, ...]]
CONFIG = TrainingConfig(
    expected_batch_size=10, mode="local-steps", local_steps=2, physical_batch_tokens=64
)


def plan() -> Plan:
    return dataclasses.replace(small_plan(), local_steps=2, max_update_norm=50.0)


def audited(base: Path, kind: TaskKind, unit: Unit = Unit.PERSON) -> Audited:
    labels = () if kind == "causal-lm" else ("a", "b", "c")
    lora = LoraConfig(train="both", top_layers=0)
    task = TaskConfig(kind=kind, max_length=32)
    workspace = open_workspace(ModelConfig(base=str(base)), lora, task, labels, 0)
    records = nobody_s_records(record_kind(kind), workspace.task.labels, 6, 3)
    return workspace, unit_examples(records, workspace.task.encode, unit, 2)


@pytest.fixture(scope="module")
def site(bert: Path) -> Audited:
    return audited(bert, "sequence-classification")


def refuted(site: Audited, make_entropy: Callable[[], Entropy] = OsEntropy) -> set[str]:
    checks = conformance(*site, plan(), CONFIG, make_entropy)
    return {check.name for check in checks if check.refuted}


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize(
    ("base", "kind"),
    [("bert", "sequence-classification"), ("bert", "token-classification"),
     ("gpt2", "causal-lm"), ("llama", "causal-lm")],
)  # fmt: skip
def test_a_sound_path_is_not_refuted(
    base: str, kind: TaskKind, unit: Unit, request: pytest.FixtureRequest
) -> None:
    assert refuted(audited(request.getfixturevalue(base), kind, unit)) == set()


def test_without_privacy_there_is_nothing_to_audit(site: Audited) -> None:
    with pytest.raises(UsageError, match="nothing to audit"):
        conformance(*site, dataclasses.replace(plan(), noise_multiplier=0.0), CONFIG)


# --- the mutation matrix ---------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], Callable[[], Entropy]]
MUTANTS: dict[str, tuple[str, Patch]] = {}


def mutant(check: str) -> Callable[[Patch], Patch]:
    """Registers a broken mechanism with the check that must refute it."""

    def register(patch: Patch) -> Patch:
        MUTANTS[patch.__name__.replace("_", " ")] = (check, patch)
        return patch

    return register


def labelled(total: ClippedSum, bound: float) -> ClippedSum:
    scale = total.grid / grid_of(bound)
    return ClippedSum(tuple((t.double() * scale).round().long() for t in total.tensors), bound)


def clipping_is(
    patch: pytest.MonkeyPatch, broken: Callable[[Sequence[Tensor], float], ClippedSum]
) -> Callable[[], Entropy]:
    def on_its_grid(per_unit: Sequence[Tensor], bound: float, grid: None = None) -> ClippedSum:
        return broken(per_unit, bound)

    patch.setattr(gradients, "clip_and_sum", on_its_grid)
    patch.setattr(clipping, "clip_and_sum", on_its_grid)
    return OsEntropy


def noise_is(
    patch: pytest.MonkeyPatch, broken: Callable[[ClippedSum, float, Entropy], NoisedSum]
) -> Callable[[], Entropy]:
    patch.setattr(mechanism, "add_noise", broken)
    return OsEntropy


@mutant("noise scale")
def noise_off(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return noise_is(patch, lambda c, s, e: add_noise(c, 0.0, e))


@mutant("noise scale")
def noise_halved(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return noise_is(patch, lambda c, s, e: add_noise(c, s / 2, e))


@mutant("noise scale")
def noise_at_four_fifths(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return noise_is(patch, lambda c, s, e: add_noise(c, s * 0.8, e))


@mutant("grid")
def float_noise(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    def broken(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        deviation = sigma * clipped.bound
        return NoisedSum(
            tuple(
                (t * clipped.grid + torch.from_numpy(entropy.normal(t.numel())).view(t.shape)
                 * deviation).float()
                for t in clipped.tensors
            )
        )  # fmt: skip

    return noise_is(patch, broken)


@mutant("influence")
def clip_off(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return clipping_is(patch, lambda g, bound: labelled(clip_and_sum(g, 1e3), bound))


@mutant("influence")
def clip_each_tensor(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return clipping_is(
        patch,
        lambda g, bound: ClippedSum(tuple(clip_and_sum([t], bound).tensors[0] for t in g), bound),
    )


@mutant("influence")
def clip_after_aggregation(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    """The batch's sum is clipped, not each unit's part: several bounds long before, one after."""

    def broken(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        summed = [g.sum(dim=0, keepdim=True) for g in per_unit]
        return clip_and_sum(summed, bound)

    return clipping_is(patch, broken)


@mutant("influence")
def clip_each_record_of_a_person(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    patch.setattr(gradients, "_by_unit", lambda gradient, owners: gradient)
    return OsEntropy


@mutant("companions")
def mean_over_the_batch(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    def broken(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        share = 1 / len(per_unit[0])
        return labelled(clip_and_sum([g * share for g in per_unit], bound * share), bound)

    return clipping_is(patch, broken)


@mutant("poisoned records")
def nan_passes(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    def broken(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        norms = torch.stack([g.flatten(1).square().sum(1) for g in per_unit]).sum(0).sqrt()
        factors = (bound * (1 - 1e-5) / norms).clamp_max(1.0) / grid_of(bound)
        sums = [torch.einsum("u,u...->...", factors, g).double() for g in per_unit]
        return ClippedSum(tuple(s.nan_to_num(nan=2.0**40).round().long() for s in sums), bound)

    return clipping_is(patch, broken)


@mutant("update noise")
def noise_for_each_physical_batch(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    def noisy(per_unit: Sequence[Tensor], bound: float) -> ClippedSum:
        total = clip_and_sum(per_unit, bound)
        draws = [OsEntropy().normal(t.numel()) * 1e4 * bound / total.grid for t in total.tensors]
        return ClippedSum(
            tuple(
                t + torch.from_numpy(np.rint(n).astype(np.int64)).view(t.shape)
                for t, n in zip(total.tensors, draws, strict=True)
            ),
            bound,
        )

    return clipping_is(patch, noisy)


@mutant("update noise")
def divisor_of_the_realised_batch(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    sizes: list[int] = []
    draw = mechanism.Mechanism.draw

    def remembered(self: mechanism.Mechanism, count: int) -> np.ndarray:
        drawn = draw(self, count)
        sizes.append(max(len(drawn), 1))
        return drawn

    patch.setattr(mechanism.Mechanism, "draw", remembered)

    def divided(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        noised = add_noise(clipped, sigma, entropy)
        return NoisedSum(tuple(t * (6 / sizes[-1]) for t in noised.tensors))

    return noise_is(patch, divided)


class OneSeed:
    """The same numbers at every step."""

    is_private = True

    def uniform(self, count: int) -> np.ndarray:
        return OsEntropy().uniform(count)

    def normal(self, count: int) -> np.ndarray:
        return np.random.default_rng(3).standard_normal(count)


@mutant("noise across steps")
def same_seed_every_step(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    return OneSeed


@mutant("sampling across steps")
def shuffled_batches(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    left: list[int] = []

    def sample(count: int, rate: float, entropy: Entropy) -> np.ndarray:
        nonlocal left
        size = round(count * rate)
        if len(left) < size:
            left = list(np.random.default_rng().permutation(count))
        batch, left = left[:size], left[size:]
        return np.array(batch, dtype=np.int64)

    patch.setattr(mechanism, "poisson_sample", sample)
    return OsEntropy


@mutant("sampling rate")
def rate_doubled(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    sample = mechanism.poisson_sample
    patch.setattr(
        mechanism, "poisson_sample", lambda count, rate, entropy: sample(count, 2 * rate, entropy)
    )
    return OsEntropy


@mutant("sampling of pairs")
def pairs_drawn_together(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    def sample(count: int, rate: float, entropy: Entropy) -> np.ndarray:
        halves = entropy.uniform(-(-count // 2)) < rate
        return np.flatnonzero(np.repeat(halves, 2)[:count])

    patch.setattr(mechanism, "poisson_sample", sample)
    return OsEntropy


@mutant("steps")
def a_step_too_many(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    draw = mechanism.Mechanism.draw

    def endless(self: mechanism.Mechanism, count: int) -> np.ndarray:
        self._drawn = 0
        return draw(self, count)

    patch.setattr(mechanism.Mechanism, "draw", endless)
    patch.setattr(mechanism.Mechanism, "release", lambda self, clipped: add_noise(
        clipped, self.plan.noise_multiplier, self._entropy))  # fmt: skip
    return OsEntropy


@mutant("update bound")
def update_not_clipped(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    patch.setattr(local, "clip_update", lambda delta, bound: delta.scale(1e4))
    return OsEntropy


@mutant("fresh noise")
def fork_shared_randomness(patch: pytest.MonkeyPatch) -> Callable[[], Entropy]:
    """Every process starts from a copy of one generator."""

    class Copied:
        is_private = True

        def __init__(self) -> None:
            self._generator = np.random.default_rng(11)

        def uniform(self, count: int) -> np.ndarray:
            return self._generator.random(count)

        def normal(self, count: int) -> np.ndarray:
            return self._generator.standard_normal(count)

    return Copied


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_refuted_by_its_check(
    site: Audited, name: str, patched: pytest.MonkeyPatch
) -> None:
    check, patch = MUTANTS[name]
    assert check in refuted(site, patch(patched))


def test_the_page_for_officers_lists_every_mutant() -> None:
    rows = {name: check for name, (check, _) in MUTANTS.items()}
    rows["one site's noise dropped"] = "noise at each site"  # tests/simulation/test_site_noise.py
    hold("mutants", "| broken mechanism | refuted by |", rows)
