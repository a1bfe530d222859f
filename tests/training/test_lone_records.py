"""In votes and evaluations a failure costs the unit whose own record fails, or else the round."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cloister.data.records import TextRecord
from cloister.errors import LedgerError
from cloister.protocol.candidates import CandidateText
from cloister.training.held_out_sum import held_out_sum
from cloister.training.units import UnitExamples
from cloister.training.vote_sum import vote_sum
from cloister.training.workspace import Workspace
from tests.support.failing import Failing
from tests.support.studies import NOTES, small_workspace

CANDIDATES = [CandidateText(texts[0], label) for label, texts in sorted(NOTES.items())]
Summing = Callable[[Sequence[UnitExamples]], Tensor]


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Workspace:
    return small_workspace(bert)


@pytest.fixture
def units(workspace: Workspace) -> list[UnitExamples]:
    records = [TextRecord(texts[1], label) for label, texts in sorted(NOTES.items())]
    return [(workspace.task.encode(record),) for record in records]


@pytest.fixture(params=["votes", "evaluations"])
def summed(workspace: Workspace, request: pytest.FixtureRequest) -> Summing:
    network, task = workspace.network, workspace.task

    def total(units: Sequence[UnitExamples]) -> Tensor:
        if request.param == "votes":
            return vote_sum(network, task, units, CANDIDATES).tensors[0]
        return held_out_sum(network, task, units, task.max_length).tensors[0]

    return total


@pytest.fixture
def failing(workspace: Workspace) -> Iterator[Callable[[Callable[[list[int]], None]], None]]:
    backbone = workspace.network.backbone
    real = backbone.get_input_embeddings()
    yield lambda ask: backbone.set_input_embeddings(Failing(real, ask))
    backbone.set_input_embeddings(real)


ERRORS = [MemoryError, torch.OutOfMemoryError, RuntimeError, IndexError]


@pytest.mark.parametrize("error", ERRORS)
def test_a_record_that_always_fails_costs_its_own_unit_alone(
    summed: Summing,
    units: list[UnitExamples],
    failing: Callable[[Callable[[list[int]], None]], None],
    error: type[Exception],
) -> None:
    bad, whole = units[1], summed(units)
    own, rest = summed([bad]), summed([units[0], *units[2:]])
    assert own.any()

    def ask(ids: list[int]) -> None:
        if ids == list(bad[0].input_ids):
            raise error("this record fails")

    failing(ask)
    assert torch.equal(summed(units), rest)
    assert torch.equal(whole - own, rest)


@pytest.mark.parametrize("error", ERRORS)
def test_a_lack_that_passes_costs_no_unit_anything(
    summed: Summing,
    units: list[UnitExamples],
    failing: Callable[[Callable[[list[int]], None]], None],
    error: type[Exception],
) -> None:
    """For example memory that an earlier record, or another program, held for a while."""
    whole, failed = summed(units), set[int]()

    def ask(ids: list[int]) -> None:
        if 0 not in ids and len(failed) < 2 and len(ids) not in failed:
            failed.add(len(ids))
            raise error("not now")

    failing(ask)
    assert torch.equal(summed(units), whole)
    assert failed


@pytest.mark.parametrize("error", ERRORS)
def test_a_device_that_is_gone_ends_the_round(
    summed: Summing,
    units: list[UnitExamples],
    failing: Callable[[Callable[[list[int]], None]], None],
    error: type[Exception],
) -> None:
    """From the second unit on; its records, and those after it, do not count as failing."""
    gone = False

    def ask(ids: list[int]) -> None:
        nonlocal gone
        gone |= ids == list(units[1][0].input_ids)
        if gone:
            raise error("gone")

    failing(ask)
    with pytest.raises(error, match="gone"):
        summed(units)


def test_an_error_of_cloister_is_no_record_s(
    summed: Summing,
    units: list[UnitExamples],
    failing: Callable[[Callable[[list[int]], None]], None],
) -> None:
    def ask(ids: list[int]) -> None:
        if ids == list(units[1][0].input_ids):
            raise LedgerError("the disk is full")

    failing(ask)
    with pytest.raises(LedgerError, match="full"):
        summed(units)


def test_a_candidate_is_not_left_out_for_a_lack_of_memory(
    workspace: Workspace, units: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it every unit would vote for another one."""

    def full(self: object, record: TextRecord) -> None:
        raise MemoryError

    monkeypatch.setattr(type(workspace.task), "encode", full)
    with pytest.raises(MemoryError):
        vote_sum(workspace.network, workspace.task, units, CANDIDATES)
