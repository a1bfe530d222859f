"""Broken mechanisms, each with the check that must refute it.

A mutant patches the real code, or brings an entropy of its own, and names the part of the audit
that its check belongs to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from cloister.privacy import clipping, mechanism
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.noise import NoisedSum
from cloister.training import gradients

MakeEntropy = Callable[[], Entropy]
Patch = Callable[[pytest.MonkeyPatch], MakeEntropy | None]


@dataclass(frozen=True)
class Mutant:
    """A broken mechanism.

    Attributes:
        part: Of the audit, that is run on it.
        check: That must refute it.
        patch: Breaks the code; returns the entropy that goes with it, None for production's.
    """

    part: str
    check: str
    patch: Patch


MUTANTS: dict[str, Mutant] = {}


def mutant(part: str, check: str) -> Callable[[Patch], Patch]:
    """Registers a function that breaks the code; its name is the row's."""

    def register(patch: Patch) -> Patch:
        name = patch.__name__.replace("_", " ").replace(" s ", "'s ")
        assert name not in MUTANTS, name
        MUTANTS[name] = Mutant(part, check, patch)
        return patch

    return register


def of_part(*parts: str) -> list[str]:
    """Names of the mutants of some parts."""
    return [name for name, mutant in MUTANTS.items() if mutant.part in parts]


def broken(name: str, patch: pytest.MonkeyPatch) -> MakeEntropy:
    """Breaks the code as a row says."""
    return MUTANTS[name].patch(patch) or OsEntropy


def noise_is(
    patch: pytest.MonkeyPatch, broken: Callable[[ClippedSum, float, Entropy], NoisedSum]
) -> None:
    patch.setattr(mechanism, "add_noise", broken)


def clipping_is(
    patch: pytest.MonkeyPatch, broken: Callable[[Sequence[Tensor], float], ClippedSum]
) -> None:
    def on_its_grid(
        per_unit: Sequence[Tensor], bound: float, grid: float | None = None
    ) -> ClippedSum:
        return broken(per_unit, bound)

    patch.setattr(gradients, "clip_and_sum", on_its_grid)
    patch.setattr(clipping, "clip_and_sum", on_its_grid)


def labelled(total: ClippedSum, bound: float) -> ClippedSum:
    """A sum that states another bound than it was clipped to."""
    scale = total.grid / grid_of(bound)
    return ClippedSum(tuple((t.double() * scale).round().long() for t in total.tensors), bound)
