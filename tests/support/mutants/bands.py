"""Broken correlated noise: of another law over steps, of other groups, or from nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cloister.client import banding
from cloister.client.banding import Banding
from cloister.data.unit_hash import mark_of
from cloister.privacy import correlated_noise
from cloister.privacy.correlated_noise import BandedStep, RecentNoise, next_noise
from cloister.privacy.plan import Plan
from cloister.training import unit_marks
from tests.support.mutants.registry import mutant


@mutant("bands", "noise of bands")
def correlation_dropped(patch: pytest.MonkeyPatch) -> None:
    def alone(bands: Any, deviation: float, recent: RecentNoise, *rest: Any) -> np.ndarray:
        noise = next_noise(bands, deviation, RecentNoise(), *rest)
        recent.vectors.insert(0, noise)
        del recent.vectors[len(bands) - 1 :]
        recent.step += 1
        return noise

    patch.setattr(correlated_noise, "next_noise", alone)


@mutant("bands", "noise of bands")
def one_band_forgotten(patch: pytest.MonkeyPatch) -> None:
    def shorter(bands: Any, *rest: Any) -> np.ndarray:
        return next_noise((*bands[:-1], 0), *rest)

    patch.setattr(correlated_noise, "next_noise", shorter)


@mutant("bands", "noise of bands")
def noise_for_one_step_s_sensitivity(patch: pytest.MonkeyPatch) -> None:
    """The scale of k_0 alone, where a unit moves b places."""
    patch.setattr(correlated_noise, "length", lambda bands: float(bands[0]))


@mutant("bands", "noise of bands")
def noise_reused_after_a_kill(patch: pytest.MonkeyPatch) -> None:
    """The step that was killed gets no noise of its own: later steps continue the one before it."""

    def behind(self: Banding, plan: Plan, released: Sequence[bool]) -> BandedStep:
        recent = self.recent(plan, released)
        recent.step = len(released) - 1
        return BandedStep(recent.step, self.marks, recent)

    patch.setattr(Banding, "step", behind)


@mutant("bands", "turns of groups")
def group_reused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BandedStep, "members", lambda self, bands: self.marks % np.uint64(bands) == 0)


@mutant("bands", "turns of groups")
def groups_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BandedStep, "members", lambda self, bands: self.marks >= 0)


@mutant("bands", "groups of units")
def hash_of_the_row_number(patch: pytest.MonkeyPatch) -> None:
    places = iter(range(10**6))
    patch.setattr(unit_marks, "content_digest", lambda record: str(next(places)).encode())
    patch.setattr(unit_marks, "person_digest", lambda person: str(next(places)).encode())


@mutant("bands", "groups of units")
def hash_without_the_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unit_marks, "mark_of", lambda digest, key, purpose: mark_of(digest, b"", purpose))


@mutant("bands", "noise that is lost")
def lost_noise_begins_anew(patch: pytest.MonkeyPatch) -> None:
    sound = Banding.recent

    def anew(self: Banding, plan: Plan, released: Sequence[bool]) -> RecentNoise:
        if not self._file(plan).exists():
            return RecentNoise()
        return sound(self, plan, released)

    patch.setattr(Banding, "recent", anew)


@mutant("bands", "noise that is lost")
def restored_noise_continues(patch: pytest.MonkeyPatch) -> None:
    sound = Banding.recent

    def restored(self: Banding, plan: Plan, released: Sequence[bool]) -> RecentNoise:
        found = banding._read(self._file(plan), plan) if self._file(plan).exists() else None
        return found or sound(self, plan, released)

    patch.setattr(Banding, "recent", restored)


@mutant("bands", "charges of cycles")
def later_rounds_of_a_cycle_charged_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Plan, "charged_steps", lambda self, before: 1)


@mutant("bands", "charges of cycles")
def cycles_after_the_first_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Plan, "charged_steps", lambda self, before: int(before == 0))
