"""New records of a batch fill passes of their own before the batch's passes; no bit changes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.layers import layer_list
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Example
from cloister.training.frozen_caches import _kept
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace
from tests.training.test_gradients import moved

HEAD = frozenset({"head.weight", "head.bias"})
SHAPES = candidates(8, 128)  # one edge of 8 tokens; 1, 2, 4, 8 or 16 rows


@pytest.fixture(autouse=True)
def caches_are_empty() -> None:
    """All workspaces on one base share them in a process."""
    _kept.cache_clear()


def workspace(folder: Path, cache: float) -> Workspace:
    return moved(
        open_workspace(
            ModelConfig(base=str(folder)),
            LoraConfig(train="both", top_layers=1),
            TaskConfig(max_length=8),
            ("a", "b"),
            0,
            frozen_cache_gib=cache,
        )
    )


def records(count: int) -> list[Example]:
    """Different records of six tokens."""
    return [Example((2, 4 + n // 8, 4 + n % 8, 7, 8, 3), n % 2) for n in range(count)]


def summed(opened: Workspace, examples: Sequence[Example]) -> tuple[torch.Tensor, ...]:
    with per_record_hooks(opened.network):
        return clipped_gradient_sum(
            opened.network, opened.task, singles(list(examples)), 1.0, SHAPES
        ).tensors


def first_layer_s_rows(opened: Workspace) -> list[int]:
    """Rows of each pass through the first layer, which is frozen, from here on."""
    rows: list[int] = []
    found = layer_list(opened.network.base, 2)
    assert found is not None
    found[1][0].register_forward_hook(lambda _, arguments, __: rows.append(len(arguments[0])))
    return rows


@pytest.mark.parametrize("trained", [HEAD, None], ids=["head", "all"])
def test_new_records_of_many_passes_are_computed_together(
    trained: frozenset[str] | None, bert: Path
) -> None:
    """32 records go as two passes of 16 rows; every second record is cached already."""
    opened, slow = workspace(bert, 4.0), workspace(bert, 0.0)
    for one in (opened, slow):
        one.train_names(trained or frozenset(one.start))
    examples = records(32)
    rows = first_layer_s_rows(opened)
    summed(opened, examples[::2])
    assert rows == [16]
    found = summed(opened, examples)
    assert rows == [16, 16]
    assert all(torch.equal(a, b) for a, b in zip(found, summed(slow, examples), strict=True))


def test_copies_of_a_record_are_computed_once(bert: Path) -> None:
    opened = workspace(bert, 4.0)
    opened.train_names(HEAD)
    rows = first_layer_s_rows(opened)
    summed(opened, records(1) * 12)
    assert rows == [1]


def test_a_full_cache_stops_it_after_one_pass(bert: Path) -> None:
    """Room for one record: what does not fit is computed in its own pass, each time."""
    opened = workspace(bert, 1500 / 2**30)
    opened.train_names(HEAD)
    rows = first_layer_s_rows(opened)
    summed(opened, records(48))
    assert rows[0] == 16
    assert len(rows) == 1 + 3


def test_nothing_is_filled_where_nothing_is_kept(bert: Path) -> None:
    opened = workspace(bert, 4.0)
    opened.train_names(HEAD)
    rows = first_layer_s_rows(opened)
    with opened.network.apart(keeping=False):
        summed(opened, records(32))
    assert rows == [16, 16]
