"""The time of a record alone is that of one that fails, so a round of such records ends in time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloister.client import lone_times
from cloister.client.lone_times import MEASURED, scoring_seconds, voting_seconds
from cloister.client.measured_times import BESIDE, Times
from cloister.data.records import TextRecord
from cloister.protocol.candidates import CandidateText
from cloister.training.held_out_sum import held_out_sum
from cloister.training.units import UnitExamples
from cloister.training.vote_sum import vote_sum
from cloister.training.workspace import Workspace
from tests.support.failing import Failing
from tests.support.studies import NOTES, small_workspace

# Units of a site, enough that failing ones take longer than what is held out beyond the declared.
UNITS = 12
CANDIDATES = [CandidateText("new pain", label) for label in sorted(NOTES)]


class Passes:
    """A clock that goes on by a second in each pass, and the passes that fail.

    Attributes:
        seconds: Its time.
        failing: Tokens of the records on which the network fails.
    """

    def __init__(self) -> None:
        self.seconds, self.failing = 0.0, set[tuple[int, ...]]()

    def __call__(self, ids: list[int]) -> None:
        self.seconds += 1.0
        if tuple(ids) in self.failing:
            raise RuntimeError("this record fails")


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Workspace:
    return small_workspace(bert)


@pytest.fixture
def passes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    counted, backbone = Passes(), workspace.network.backbone
    clock = SimpleNamespace(perf_counter=lambda: counted.seconds)
    monkeypatch.setattr(lone_times, "time", clock)
    real = backbone.get_input_embeddings()
    backbone.set_input_embeddings(Failing(real, counted))
    yield counted
    backbone.set_input_embeddings(real)


@pytest.fixture
def units(workspace: Workspace) -> list[UnitExamples]:
    records = [TextRecord(text, label) for label, texts in sorted(NOTES.items()) for text in texts]
    encoded = [workspace.task.encode(record) for record in records]
    return [(encoded[place % len(encoded)],) for place in range(UNITS)]


def evaluated(workspace: Workspace, units: Sequence[UnitExamples]) -> tuple[float, float]:
    """The reserve of an evaluation, and of one whose records never fail."""
    longest, plan = [one for unit in units for one in unit], _plan()
    reserved = Times(0.0, 0.0, scoring=scoring_seconds(workspace, longest))
    return reserved.of_evaluation(plan, UNITS), Times(0.0, 0.0, 1.0).of_evaluation(plan, UNITS)


def voted(workspace: Workspace, units: Sequence[UnitExamples]) -> tuple[float, float]:
    """The reserve of a round of votes, and of one whose records never fail."""
    longest, plan, count = [one for unit in units for one in unit], _plan(), len(CANDIDATES)
    voting, candidate = voting_seconds(workspace, longest, count, "new pain")
    reserved = Times(0.0, 0.0, voting=voting, candidate=candidate)
    sound = Times(0.0, 0.0, voting=1.0, candidate=1.0)
    return reserved.of_votes(plan, count), sound.of_votes(plan, count)


def _plan() -> Any:
    return SimpleNamespace(public_records=UNITS, max_records=1)


def scored(workspace: Workspace, units: Sequence[UnitExamples]) -> Any:
    task = workspace.task
    return held_out_sum(workspace.network, task, units, task.max_length)


def counted(workspace: Workspace, units: Sequence[UnitExamples]) -> Any:
    return vote_sum(workspace.network, workspace.task, units, CANDIDATES)


@pytest.mark.parametrize(("reserve", "summed"), [(evaluated, scored), (voted, counted)])
def test_a_round_in_which_every_record_fails_ends_within_its_reserve(
    workspace: Workspace,
    units: list[UnitExamples],
    passes: Passes,
    reserve: Callable[..., tuple[float, float]],
    summed: Callable[..., Any],
) -> None:
    """And that of records which never fail is too short for it."""
    reserved, sound = reserve(workspace, units)
    passes.failing = {one.input_ids for unit in units for one in unit}
    begun = passes.seconds
    assert not summed(workspace, units).tensors[0].any()
    assert sound < passes.seconds - begun + BESIDE <= reserved


def test_a_failing_record_takes_its_pass_a_dummy_and_a_second_try(
    workspace: Workspace, units: list[UnitExamples], passes: Passes
) -> None:
    longest = [units[0][0], units[1][0]]
    assert scoring_seconds(workspace, longest) == 3.0
    # One record first, then each soundly, then each with three passes.
    assert passes.seconds == 1 + MEASURED + 3 * MEASURED
    assert voting_seconds(workspace, longest, 5, "new pain") == (3.0, 3.0)
