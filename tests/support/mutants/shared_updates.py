"""Broken sums of updates with shared noise: known shares, masks that show, second answers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloister.client import asked_charge
from cloister.client import round as site_round
from cloister.ledger.charge import Charge
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.mechanism import Mechanism
from tests.support.mutants.own import seeded_coins, seeded_noise
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import (
    answering_another,
    looking_first,
    redrawn,
    same_own_masks,
    same_shared_masks,
    unmasked,
    with_all_units,
)

Integers = NDArray[np.int64]


@mutant("shared updates", "noise of different sums")
def update_shares_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    seeded_noise(patch)


@mutant("shared updates", "coins of summed updates")
def coins_of_summed_updates_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    seeded_coins(patch)


@mutant("shared updates", "summed updates and their noise")
def a_site_without_records_adds_no_share_from_a_later_round_on(patch: pytest.MonkeyPatch) -> None:
    _silent(patch, 2)


@mutant("shared updates", "summed updates and their noise")
def a_site_without_records_adds_no_share_to_an_update(patch: pytest.MonkeyPatch) -> None:
    _silent(patch, 0)


def _silent(patch: pytest.MonkeyPatch, first: int) -> None:
    """Sums that are zero get no share after so many."""
    real, sums = Mechanism.release_share, [0]

    def silent(self: Mechanism, clipped: ClippedSum) -> Integers:
        own: Integers = np.concatenate([tensor.flatten().numpy() for tensor in clipped.tensors])
        sums[0] += not own.any()
        return real(self, clipped) if own.any() or sums[0] <= first else own

    patch.setattr(Mechanism, "release_share", silent)


@mutant("shared updates", "charges of summed updates")
def summed_updates_charged_in_the_first_round_only(patch: pytest.MonkeyPatch) -> None:
    """Later rounds are charged as if they were the first one of another study."""

    def elsewhere(**fields: Any) -> Charge:
        charge = Charge(**fields)
        if charge.round > 2:
            return replace(charge, study=f"another {charge.round}", round=1)
        return charge

    patch.setattr(asked_charge, "Charge", elsewhere)


@mutant("shared updates", "charge before summed updates")
def summed_updates_charged_after_a_look_at_records(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "_answer_secure", "units")


@mutant("shared updates", "summed updates asked again")
def update_shares_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    redrawn(patch)


@mutant("shared updates", "summed updates asked again")
def an_update_of_another_adapter_in_a_round_that_was_released(patch: pytest.MonkeyPatch) -> None:
    answering_another(patch)


@mutant("shared updates", "masks of summed updates")
def updates_without_masks(patch: pytest.MonkeyPatch) -> None:
    unmasked(patch)


@mutant("shared updates", "masks of summed updates")
def updates_under_the_same_shared_masks_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_shared_masks(patch)


@mutant("shared updates", "own masks of summed updates")
def updates_under_the_same_own_mask_in_every_round(patch: pytest.MonkeyPatch) -> None:
    same_own_masks(patch)


@mutant("shared updates", "other side of summed updates")
def summed_updates_of_held_out_units_too(patch: pytest.MonkeyPatch) -> None:
    with_all_units(patch, site_round, "_answer_secure", "units")
