"""Ways to break releases with noise of a site's own, alike for updates, evaluations and votes."""

import secrets
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cloister.client import asked_charge
from cloister.client.site import Site
from cloister.errors import RoundSpentError
from cloister.ledger.charge import Charge, Released
from cloister.ledger.history import History, Reserved
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import Transaction
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy, OsEntropy, SeededEntropy, Uniforms
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.seeds import child_generator


class Free:
    """The right to release bytes that no entry has."""

    def __init__(self, head: str = "ab" * 32) -> None:
        self._head = head

    def release(self, payload: bytes) -> Released:
        return Released(payload, self._head)


def halved(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Half of the noise."""

    def half(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        return add_noise(clipped, noise / 2, entropy)

    patch.setattr(module, "add_noise", half)


def without_noise(patch: pytest.MonkeyPatch, module: ModuleType, count: int) -> None:
    """The first values have no noise."""

    def but_some(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        (noised,) = add_noise(clipped, noise, entropy).tensors
        noised[:count] = clipped.tensors[0][:count] * clipped.grid
        return NoisedSum((noised,))

    patch.setattr(module, "add_noise", but_some)


def seeded_noise(patch: pytest.MonkeyPatch) -> None:
    """Lets all noise follow from seed, site and round."""

    class Predictable(SeededEntropy):
        is_private = True

    def seeded(self: Site, plan: Plan, number: int) -> Predictable:
        return Predictable(child_generator(self.seed, "site", self.name, "round", number))

    patch.setattr(Site, "entropy", seeded)


def redrawn_again(patch: pytest.MonkeyPatch, kind: ReleaseKind) -> None:
    """Asked again, a site draws anew."""
    real = Ledger.reserve

    def reserve(self: Ledger, charge: Charge) -> Any:
        granted = real(self, charge)
        if charge.kind is kind and isinstance(granted, Released):
            return Free(granted.head)
        return granted

    patch.setattr(Ledger, "reserve", reserve)


def answering_another_free(patch: pytest.MonkeyPatch) -> None:
    """A round that was released is answered for another question too, and not charged again."""
    real = Ledger._again

    def again(self: Ledger, before: Reserved, charge: Charge, transaction: Transaction) -> Any:
        if before.request != charge.request:
            return Free()
        return real(self, before, charge, transaction)

    patch.setattr(Ledger, "_again", again)


def redrawn_later(patch: pytest.MonkeyPatch) -> None:
    """Asked again after a later round, a site draws anew: it finds the last release alone."""
    real = Ledger._again

    def again(self: Ledger, before: Reserved, charge: Charge, transaction: Transaction) -> Any:
        granted = real(self, before, charge, transaction)
        is_earlier = isinstance(granted, Released) and granted.head != self.head.hash
        return Free(granted.head) if is_earlier else granted

    patch.setattr(Ledger, "_again", again)


def redrawn_after_a_cut(patch: pytest.MonkeyPatch) -> None:
    """A round that was charged and cut off is released after all."""
    real = Ledger._again

    def again(self: Ledger, before: Reserved, charge: Charge, transaction: Transaction) -> Any:
        try:
            return real(self, before, charge, transaction)
        except RoundSpentError:
            return Free()

    patch.setattr(Ledger, "_again", again)


def uncharged_after(patch: pytest.MonkeyPatch, kind: ReleaseKind, first: int) -> None:
    """Releases of a kind after the first rounds are free."""
    real = Ledger.reserve

    def reserve(self: Ledger, charge: Charge) -> Any:
        if charge.kind is kind and charge.round > first:
            return Free()
        return real(self, charge)

    patch.setattr(Ledger, "reserve", reserve)


def charged_as_training(patch: pytest.MonkeyPatch) -> None:
    def as_training(**fields: Any) -> Charge:
        return Charge(**{**fields, "kind": ReleaseKind.TRAINING})

    patch.setattr(asked_charge, "Charge", as_training)


def charged_for_more_noise(patch: pytest.MonkeyPatch) -> None:
    """The ledger states twice the noise that is added."""

    def as_quiet(**fields: Any) -> Charge:
        plan = fields["plan"]
        loud = replace(plan, noise_multiplier=2 * plan.noise_multiplier)
        return Charge(**{**fields, "plan": loud})

    patch.setattr(asked_charge, "Charge", as_quiet)


def unlisted(patch: pytest.MonkeyPatch, module: ModuleType, check: str) -> None:
    """Neither the site nor its ledger asks whether the plan lists a release in the round."""
    patch.setattr(module, check, lambda *given: None)
    patch.setattr(History, "untimely", lambda *given: None)


class _Coins(OsEntropy):
    """Coins of a generator, and noise from the operating system."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def uniform(self, count: int) -> Uniforms:
        return self._generator.random(count)


def seeded_coins(patch: pytest.MonkeyPatch) -> None:
    """Who knows the study knows the batches: nothing is amplified, and ε is that of rate 1."""

    def seeded(self: Site, plan: Plan, number: int) -> Entropy:
        return _Coins(child_generator(self.seed, "site", self.name, "round", number))

    patch.setattr(Site, "entropy", seeded)


def same_coins(patch: pytest.MonkeyPatch) -> None:
    """A site draws the same units in every round, by coins that only it knows."""
    drawn: dict[str, int] = {}

    def same(self: Site, plan: Plan, number: int) -> Entropy:
        seed = drawn.setdefault(self.ledger.public_key, secrets.randbits(128))
        return _Coins(np.random.default_rng(seed))

    patch.setattr(Site, "entropy", same)
