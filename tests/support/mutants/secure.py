"""Ways to break sums with shared noise that are alike for updates, evaluations and votes."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloister.client import round as site_round
from cloister.client import secure
from cloister.client.admission import Admitted
from cloister.client.secure import SecureExchange
from cloister.errors import RefusedError
from cloister.ledger.charge import Charge, Released
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.sharing import Sharing
from cloister.secagg import participant, unmasking

Integers = NDArray[np.int64]


def trusting(patch: pytest.MonkeyPatch) -> None:
    """Sites that collude with the coordinator take their own shares off the sum."""
    patch.setattr(Sharing, "honest", property(lambda self: self.threshold))


def shares_for_all_sites(patch: pytest.MonkeyPatch, method: str) -> None:
    """σ/√K at each site: enough while nobody is missing and nobody colludes."""
    real = getattr(Plan, method)

    def fewer(self: Plan, *values: int) -> SharedNoise:
        noise: SharedNoise = real(self, *values)
        assert self.sharing is not None
        share = noise.share * math.sqrt(self.sharing.honest / self.sharing.sites)
        return replace(noise, share=share)

    patch.setattr(Plan, method, fewer)


def halved_shares(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Half of each share."""
    _shares_are(patch, module, lambda drawn: drawn, 0.5)


def shares_without(patch: pytest.MonkeyPatch, module: ModuleType, count: int) -> None:
    """The first values have no share."""

    def but_some(drawn: Integers) -> Integers:
        drawn[:count] = 0
        return drawn

    _shares_are(patch, module, but_some)


def cancelling_shares(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Each value has a whole share; the first two together have none."""

    def cancelling(drawn: Integers) -> Integers:
        drawn[1] = -drawn[0]
        return drawn

    _shares_are(patch, module, cancelling)


def _shares_are(
    patch: pytest.MonkeyPatch,
    module: ModuleType,
    change: Callable[[Integers], Integers],
    factor: float = 1.0,
) -> None:
    def broken(deviation: float, count: int, entropy: Entropy) -> Integers:
        return change(discrete_gaussian(deviation * factor, count, entropy))

    patch.setattr(module, "discrete_gaussian", broken)


def with_all_units(patch: pytest.MonkeyPatch, module: ModuleType, name: str, field: str) -> None:
    """Has a function that computes a release see the units of both sides."""
    real = getattr(module, name)

    def both(admitted: Admitted, *given: Any) -> Any:
        site = admitted.site
        every: Any = [*(site.held_out or ()), *site.units]
        return real(replace(admitted, site=replace(site, **{field: every})), *given)

    patch.setattr(module, name, both)


def looking_first(patch: pytest.MonkeyPatch, answers: str, units: str) -> None:
    """Has a function of the site's round look at all units of a field before it does anything."""
    real: Callable[..., Any] = getattr(site_round, answers)

    def late(admitted: Any, *given: Any) -> Any:
        for unit in getattr(admitted.site, units):
            assert unit is not None
        return real(admitted, *given)

    patch.setattr(site_round, answers, late)


def redrawn(patch: pytest.MonkeyPatch) -> None:
    """Asked again, a site draws its share anew: the difference of both answers shows noise."""
    real, seen = SecureExchange._mask, set[tuple[str, int]]()

    def again(self: SecureExchange, charge: Charge, noised: Any) -> Released:
        released, place = real(self, charge, noised), (self.site, self.sum)
        if place not in seen:
            seen.add(place)
            return released
        return _masked_anew(self, noised, released.head)

    patch.setattr(SecureExchange, "_mask", again)


def answering_another(patch: pytest.MonkeyPatch) -> None:
    """A round that was released is answered for another question too, and not charged again."""
    real = SecureExchange._mask

    def either(self: SecureExchange, charge: Charge, noised: Any) -> Released:
        try:
            return real(self, charge, noised)
        except RefusedError:
            return _masked_anew(self, noised, self.ledger.head.hash)

    patch.setattr(SecureExchange, "_mask", either)


def _masked_anew(exchange: SecureExchange, noised: Any, head: str) -> Released:
    assert exchange.keys.member is not None
    before = replace(exchange.keys.member, masked=exchange.sum - 1)
    exchange.keys.member, update = secure.mask_update(
        before, exchange.sum, exchange.adapter, noised()
    )
    return Released(update.to_bytes(), head)


def unmasked(patch: pytest.MonkeyPatch) -> None:
    """The sum is right, and each site's values are there with a share of the noise alone."""
    for module in (participant, unmasking):
        patch.setattr(module, "mask", lambda seed, count, bits: np.zeros(count, f"u{bits // 8}"))


def same_shared_masks(patch: pytest.MonkeyPatch) -> None:
    """Two sites use one mask in all rounds: a coordinator that takes two rounds of a site apart has
    the change of its values, with noise."""
    real = participant.derived
    patch.setattr(participant, "derived", lambda secret, context: real(secret, b"mask"))


def same_own_masks(patch: pytest.MonkeyPatch) -> None:
    """A site that is called missing in a round is opened with what it revealed in another."""
    real = secure.mask_update

    def draws(site: str) -> Iterator[bytes]:
        yield hashlib.sha256(site.encode()).digest()

    def fixed(member: Any, number: int, adapter: str, values: Integers) -> Any:
        first = draws(member.site)

        def draw(count: int) -> bytes:
            return next(first, None) or os.urandom(count)

        return real(member, number, adapter, values, draw)

    patch.setattr(secure, "mask_update", fixed)


def silent_later(patch: pytest.MonkeyPatch, module: Any, name: str, first: int) -> None:
    """A site whose own sum is zero adds no share after so many rounds; 0: never."""
    real, rounds = getattr(module, name), [0]

    def silent(clipped: Any, noise: Any, entropy: Any) -> Integers:
        (own,) = clipped.tensors
        rounds[0] += not own.any()
        if own.any() or rounds[0] <= first:
            noised: Integers = real(clipped, noise, entropy)
            return noised
        zeros: Integers = own.numpy()
        return zeros

    patch.setattr(module, name, silent)
