"""A unit's votes: for the nearest candidates of its labels, and of norm at most 1."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister.data.records import TextRecord
from cloister.errors import AdapterFormatError, RefusedError
from cloister.privacy.clipping import clip_and_sum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.vote_release import release_votes
from cloister.privacy.votes import most_candidates
from cloister.protocol.candidates import (
    MOST_TEXT,
    CandidateText,
    decode_candidates,
    encode_candidates,
)
from cloister.training.units import UnitExamples
from cloister.training.vote_sum import ballot_of, unit_votes, vote_sum
from cloister.training.workspace import Workspace
from tests.support.ledgers import small_plan, voting_plan
from tests.support.studies import small_workspace

CANDIDATES = (
    CandidateText("knee swollen", "orthopaedics"),
    CandidateText("chest pain at rest", "cardiology"),
    CandidateText("chest pain at rest", "cardiology"),
    CandidateText("severe headache", "cardiology"),
)


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Workspace:
    return small_workspace(bert, train="none")


def unit(workspace: Workspace, *records: tuple[str, str]) -> UnitExamples:
    return tuple(workspace.task.encode(TextRecord(text, label)) for text, label in records)


def votes(workspace: Workspace, *units: UnitExamples) -> list[float]:
    total = vote_sum(workspace.network, workspace.task, units, CANDIDATES)
    counts: list[float] = (total.tensors[0].double() * total.grid).tolist()
    return [round(count, 3) for count in counts]


def test_a_record_votes_for_the_nearest_of_its_label_and_the_first_of_equal_ones(
    workspace: Workspace,
) -> None:
    """The nearest candidate of all has another label for the second record."""
    one = unit(workspace, ("chest pain at rest", "cardiology"))
    other = unit(workspace, ("chest pain at rest", "orthopaedics"))
    assert votes(workspace, one) == [0, 1, 0, 0]
    assert votes(workspace, other) == [1, 0, 0, 0]
    assert votes(workspace, one, one, other) == [1, 2, 0, 0]


def test_a_person_s_one_vote_is_split_among_the_records_that_can_vote(workspace: Workspace) -> None:
    person = unit(
        workspace,
        ("chest pain at rest", "cardiology"),
        ("severe headache", "cardiology"),
        ("itchy rash", "dermatology"),  # no candidate has this label
    )
    assert votes(workspace, person) == [0, 0.5, 0, 0.5]


def test_what_cannot_vote_adds_zero(workspace: Workspace) -> None:
    none = [unit(workspace, ("itchy rash", "dermatology")), ()]
    too_long = replace(unit(workspace, ("a", "cardiology"))[0], input_ids=(5,) * 99)
    outside = replace(too_long, input_ids=(10_000,))
    assert votes(workspace, *none, (too_long,), (outside,)) == [0, 0, 0, 0]
    assert votes(workspace) == [0, 0, 0, 0]


def test_a_vector_that_is_not_finite_counts_for_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second record's, and the third candidate's, after those of the others."""
    real, network = type(workspace.network).pooled, workspace.network
    bad = set(unit(workspace, ("itchy rash", "cardiology"))[0].input_ids)

    def pooled(self: Any, batch: Any) -> torch.Tensor:
        found = real(self, batch)
        ids = set(batch.input_ids[0].tolist())
        return torch.full_like(found, torch.inf) if ids == bad else found

    monkeypatch.setattr(type(network), "pooled", pooled)
    sound = unit(workspace, ("chest pain at rest", "cardiology"))
    broken = unit(workspace, ("itchy rash", "cardiology"))
    assert votes(workspace, sound, broken) == [0, 1, 0, 0]
    ballot = ballot_of(network, workspace.task, [CandidateText("itchy rash", "cardiology")])
    assert ballot.by_label == {}
    assert unit_votes(network, workspace.task, ballot, sound) is None


def test_the_release_takes_a_sum_of_votes_alone() -> None:
    rows = torch.eye(6)
    plan = voting_plan(noise_multiplier=0.3)
    (noised,) = release_votes(clip_and_sum([rows], 1.0), plan, OsEntropy()).tensors
    assert noised.shape == (6,)
    assert np.unique(noised.numpy()).size == 6
    for total, other in (
        (clip_and_sum([rows], 2.0), plan),
        (clip_and_sum([rows[:, :5]], 1.0), plan),
        (clip_and_sum([rows], 1.0), small_plan()),
    ):
        with pytest.raises(RefusedError, match="are needed"):
            release_votes(total, other, OsEntropy())


def test_the_most_candidates_have_a_mean_count_of_their_noise() -> None:
    most = most_candidates(2000, 8.0)
    assert most == 250
    assert 2000 / most >= 8.0 > 2000 / (most + 1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{}", "no list given"),
        (b"[", "not readable"),
        (b'[["a","x"]]', "1 given; the plan lists 2"),
        (b'[["a","x"],["b"]]', "candidate 2: not a text with its label"),
        (b'[["a","x"],[1,"x"]]', "candidate 2: not a text with its label"),
        (b'[["a","x"],[" ","x"]]', "candidate 2: 1 characters"),
        (b'[["a","x"],["b","y"]]', "candidate 2: label 'y' is not one of the study"),
    ],
)
def test_other_candidates_than_the_plan_s_are_refused(body: bytes, why: str) -> None:
    with pytest.raises(AdapterFormatError, match=why):
        decode_candidates(body, 2, ("x",))


def test_candidates_read_back_as_they_were() -> None:
    given = (CandidateText('a "quoted"\ntext 咳', "x"), CandidateText("b" * MOST_TEXT, "x"))
    assert decode_candidates(encode_candidates(given), 2, ("x",)) == given
    too_long = (given[0], CandidateText("b" * (MOST_TEXT + 1), "x"))
    with pytest.raises(AdapterFormatError, match="characters"):
        decode_candidates(encode_candidates(too_long), 2, ("x",))
