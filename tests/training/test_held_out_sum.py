"""The sum over held-out units: one unit moves it by its own clipped vector, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from cloister.data.records import TextRecord
from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.evaluation_release import release_evaluation
from cloister.privacy.evaluations import Evaluations
from cloister.training.held_out_sum import held_out_sum, released_shapes
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.models import tiny_bert
from tests.support.studies import NOTES, small_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tiny_bert(tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture
def units(workspace: Workspace) -> list[UnitExamples]:
    records = [TextRecord(text, label) for label in sorted(NOTES) for text in NOTES[label]]
    examples = [workspace.task.encode(record) for record in records]
    return [(one,) for one in examples[:6]] + [tuple(examples[6:9]), ()]


def total(workspace: Workspace, units: list[UnitExamples]) -> torch.Tensor:
    found = held_out_sum(workspace.network, workspace.task, units, 16)
    assert found.bound == 1.0
    return found.tensors[0]


def test_a_unit_moves_the_sum_by_a_vector_of_its_own_of_norm_at_most_one(
    workspace: Workspace, units: list[UnitExamples]
) -> None:
    whole = total(workspace, units)
    assert whole.shape == released_shapes(workspace.task)["statistics"]
    for place, unit in enumerate(units):
        own = total(workspace, [unit])
        rest = total(workspace, units[:place] + units[place + 1 :])
        assert torch.equal(whole - rest, own)
        norm = own.double().norm() * held_out_sum(workspace.network, workspace.task, [], 16).grid
        assert norm <= 1.0
        assert bool(own.any()) is bool(unit)
    assert torch.equal(total(workspace, units[::-1]), whole)


def test_a_person_counts_as_one_with_any_number_of_records(
    workspace: Workspace, units: list[UnitExamples]
) -> None:
    one, *_ = units
    # The mean of equal vectors is the vector.
    assert torch.equal(total(workspace, [one * 3]), total(workspace, [one]))


def test_what_cannot_be_scored_adds_zero_and_changes_nothing_else(
    workspace: Workspace, units: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = total(workspace, units)
    (example,) = units[0]
    bad = [
        (replace(example, input_ids=(10**6,)),),
        (replace(example, target=99),),
        (replace(example, input_ids=example.input_ids * 20),),
    ]
    assert torch.equal(total(workspace, [*units, *bad]), whole)
    real = workspace.network.logits

    def failing(batch: object) -> torch.Tensor:
        if batch.examples == (example,) or list(batch.examples) == [example]:  # type: ignore[attr-defined]
            raise RuntimeError("this record fails")
        return real(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(workspace.network, "logits", failing)
    assert torch.equal(total(workspace, units), whole - _alone(workspace, units[0], real))


def _alone(workspace: Workspace, unit: UnitExamples, real: object) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace.network, "logits", real)
        return total(workspace, [unit])


def test_scores_that_are_not_finite_add_zero(
    workspace: Workspace, units: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.network, "logits", lambda batch: torch.full((1, 3), float("nan")))
    assert not total(workspace, units).any()


def test_nothing_of_held_out_records_is_cached(
    workspace: Workspace, units: list[UnitExamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[bool] = []
    real = workspace.network.apart

    @contextmanager
    def noted(*, keeping: bool = True) -> Iterator[None]:
        entered.append(keeping)
        with real(keeping=keeping):
            yield

    monkeypatch.setattr(workspace.network, "apart", noted)
    total(workspace, units)
    assert entered == [False]


def test_only_sums_that_are_clipped_to_the_bound_are_released() -> None:
    evaluations = Evaluations(rounds=(1,), noise_multiplier=1.0)
    other = ClippedSum((torch.zeros(3, dtype=torch.int64),), 2.0)
    with pytest.raises(RefusedError, match=r"1\.0 is needed"):
        release_evaluation(other, evaluations, OsEntropy())
