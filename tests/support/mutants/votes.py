"""Broken votes: too long, for the wrong candidates, under-noised, uncharged or charged too late."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cloister.client import voting
from cloister.privacy import vote_release
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import BOUND
from cloister.training import vote_sum as summing
from cloister.training.units import singles
from tests.support.mutants.answers import reply_is
from tests.support.mutants.own import (
    answering_another_free,
    halved,
    redrawn_after_a_cut,
    redrawn_again,
    redrawn_later,
    seeded_noise,
    uncharged_after,
    unlisted,
    without_noise,
)
from tests.support.mutants.registry import mutant
from tests.support.mutants.secure import looking_first

Floats = np.ndarray


def unclipped(rows: Floats, grid: float | None = None) -> ClippedSum:
    step = grid_of(BOUND) if grid is None else grid
    steps = torch.from_numpy(np.rint(rows.astype(np.float64) / step).astype(np.int64))
    return ClippedSum((steps.sum(dim=0),), BOUND, grid)


@mutant("votes", "influence of a voting unit")
def votes_not_clipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(summing, "clipped_votes", unclipped)


@mutant("votes", "influence of a voting unit")
def a_unit_votes_twice(patch: pytest.MonkeyPatch) -> None:
    real = summing.unit_votes

    def twice(network: Any, task: Any, ballot: Any, unit: Any) -> Floats | None:
        row = real(network, task, ballot, unit)
        return None if row is None else 2 * row

    patch.setattr(summing, "unit_votes", twice)
    patch.setattr(summing, "clipped_votes", unclipped)


@mutant("votes", "influence of a voting unit")
def each_record_of_a_person_votes(patch: pytest.MonkeyPatch) -> None:
    real = summing.vote_sum

    def split(network: Any, task: Any, units: Any, candidates: Any, grid: Any = None) -> ClippedSum:
        return real(network, task, singles([e for unit in units for e in unit]), candidates, grid)

    patch.setattr(summing, "vote_sum", split)


@mutant("votes", "influence of a voting unit")
def votes_by_a_softmax_of_unbounded_norm(patch: pytest.MonkeyPatch) -> None:
    real = summing.unit_votes

    def soft(network: Any, task: Any, ballot: Any, unit: Any) -> Floats | None:
        row = real(network, task, ballot, unit)
        return None if row is None else np.exp(row)

    patch.setattr(summing, "unit_votes", soft)
    patch.setattr(summing, "clipped_votes", unclipped)


@mutant("votes", "votes of a unit")
def votes_for_the_farthest_candidate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(np, "argmax", np.argmin)


@mutant("votes", "companions of a voting unit")
def votes_weighted_by_the_number_of_units(patch: pytest.MonkeyPatch) -> None:
    real = summing.clipped_votes
    patch.setattr(summing, "clipped_votes", lambda rows, grid=None: real(rows / len(rows), grid))


@mutant("votes", "noise of votes")
def vote_noise_halved(patch: pytest.MonkeyPatch) -> None:
    halved(patch, vote_release)


@mutant("votes", "noise of votes")
def noise_dropped_on_one_count(patch: pytest.MonkeyPatch) -> None:
    without_noise(patch, vote_release, 1)


@mutant("votes", "noise of votes")
def counts_without_a_vote_left_without_noise(patch: pytest.MonkeyPatch) -> None:
    def where_voted(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        (noised,) = add_noise(clipped, noise, entropy).tensors
        return NoisedSum((torch.where(clipped.tensors[0] == 0, 0.0, noised),))

    patch.setattr(vote_release, "add_noise", where_voted)


@mutant("votes", "counts and their noise")
def vote_noise_whose_sum_over_all_counts_is_zero(patch: pytest.MonkeyPatch) -> None:
    """Every count has its noise, and the sum of all is the exact number of voting units."""

    def centred(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        exact = clipped.tensors[0] * clipped.grid
        drawn = add_noise(clipped, noise, entropy).tensors[0] - exact
        return NoisedSum(((exact + drawn - drawn.mean()).float(),))

    patch.setattr(vote_release, "add_noise", centred)


@mutant("votes", "counts and their noise")
def vote_noise_halved_where_anybody_voted(patch: pytest.MonkeyPatch) -> None:
    def less(clipped: ClippedSum, noise: float, entropy: Entropy) -> NoisedSum:
        return add_noise(clipped, noise / (2 if clipped.tensors[0].any() else 1), entropy)

    patch.setattr(vote_release, "add_noise", less)


@mutant("votes", "counts and their noise")
def a_site_s_first_unit_votes_twice(patch: pytest.MonkeyPatch) -> None:
    """In the site's round alone, and not in the sum of which influence is measured."""
    real = voting.vote_sum

    def more(network: Any, task: Any, units: Any, candidates: Any, grid: Any = None) -> ClippedSum:
        return real(network, task, [*units, *units[:1]], candidates, grid)

    patch.setattr(voting, "vote_sum", more)


@mutant("votes", "noise of votes")
def vote_noise_from_the_study_s_seed(patch: pytest.MonkeyPatch) -> None:
    """Of the right size, and charged as private; who knows the study can take it off."""
    seeded_noise(patch)


@mutant("votes", "votes asked again")
def vote_noise_redrawn_when_asked_again(patch: pytest.MonkeyPatch) -> None:
    redrawn_again(patch, ReleaseKind.VOTE)


@mutant("votes", "votes asked again")
def vote_noise_redrawn_after_a_later_round(patch: pytest.MonkeyPatch) -> None:
    redrawn_later(patch)


@mutant("votes", "votes asked again")
def votes_for_other_candidates_in_a_round_that_was_released(patch: pytest.MonkeyPatch) -> None:
    answering_another_free(patch)


@mutant("votes", "votes asked again")
def noise_of_a_round_that_was_cut_off_redrawn(patch: pytest.MonkeyPatch) -> None:
    redrawn_after_a_cut(patch)


@mutant("votes", "charges of votes")
def votes_charged_in_the_first_round_only(patch: pytest.MonkeyPatch) -> None:
    uncharged_after(patch, ReleaseKind.VOTE, 1)


@mutant("votes", "charge before votes")
def votes_charged_after_they_are_counted(patch: pytest.MonkeyPatch) -> None:
    looking_first(patch, "vote", "units")


@mutant("votes", "votes asked again")
def votes_that_the_plan_does_not_list(patch: pytest.MonkeyPatch) -> None:
    unlisted(patch, voting, "check_voting")


@mutant("votes", "many voting units")
def voting_units_beyond_the_first_64_count_twice(patch: pytest.MonkeyPatch) -> None:
    real = summing.vote_sum

    def more(network: Any, task: Any, units: Any, candidates: Any, grid: Any = None) -> ClippedSum:
        return real(network, task, [*units, *units[summing.BLOCK :]], candidates, grid)

    patch.setattr(summing, "vote_sum", more)


@mutant("votes", "failing voting unit")
def a_voting_unit_that_fails_ends_the_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(summing, "alone", lambda compute, example, *rest: compute(example))


@mutant("votes", "answers to votes")
def epsilon_carries_the_number_of_voting_units(patch: pytest.MonkeyPatch) -> None:
    reply_is(patch, lambda at, reply: replace(reply, epsilon=float(len(at.units))))
