"""Units of several records are summed in groups that fit into memory: borders change nothing.

With production's memory a test would need hundreds of units to come to a border; here memory holds
one, two and three of them, so that borders lie between all of them in turn.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from cloister.models.network import trained_parameters
from cloister.privacy.clipping import grid_of
from cloister.training import gradients
from cloister.training.proof import prove
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.isolation import (
    BOUND,
    CONFIG,
    PLAN,
    movement,
    random_units,
    summing,
    wide_workspace,
)

STEPS = BOUND / grid_of(BOUND)  # the bound in steps of the grid
COUNT = 7


@pytest.fixture(scope="module")
def proven(bases: Callable[[str], Path]) -> tuple[Workspace, BatchShapes, torch.Tensor]:
    """A workspace, its shapes, and the sum of the units below when all fit into memory."""
    workspace = wide_workspace(bases("bert"), "sequence-classification")
    shapes = prove(workspace, PLAN, CONFIG).shapes
    return workspace, shapes, summing(workspace, shapes)(units_of(workspace))


def units_of(workspace: Workspace) -> list[UnitExamples]:
    """Persons of two and more records, with two of one between them."""
    units = [
        unit * 2 if len(unit) == 1 else unit
        for unit in random_units(workspace, COUNT - 2, seed=3, most=4)
    ]
    return [*units[:2], *random_units(workspace, 2, seed=4), *units[2:]]


def room_for(workspace: Workspace, count: int, patch: pytest.MonkeyPatch) -> None:
    size = 4 * sum(p.numel() for _, p in trained_parameters(workspace.network))
    patch.setattr(gradients, "SUMS_BYTES", count * size)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_person_s_part_is_the_same_on_every_side_of_a_border(
    proven: tuple[Workspace, BatchShapes, torch.Tensor],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace, shapes, whole = proven
    room_for(workspace, count, monkeypatch)
    summed, units = summing(workspace, shapes), units_of(workspace)
    assert torch.equal(summed(units), whole)
    others, most = movement(summed, units, range(len(units)))
    assert others == 0
    assert 0.5 * STEPS < most <= STEPS


Groups = Iterator[list[UnitExamples]]


def twice_at_a_border(units: Sequence[UnitExamples], most: int) -> Groups:
    several = [unit for unit in units if len(unit) > 1]
    yield [unit for unit in units if len(unit) == 1] + several[:most]
    for at in range(most, len(several), most):
        yield several[at - 1 : at + most]


def none_at_a_border(units: Sequence[UnitExamples], most: int) -> Groups:
    several = [unit for unit in units if len(unit) > 1]
    yield [unit for unit in units if len(unit) == 1] + several[:most]
    for at in range(most, len(several), most):
        yield several[at + 1 : at + most]


def lone_ones_in_each_group(units: Sequence[UnitExamples], most: int) -> Groups:
    several = [unit for unit in units if len(unit) > 1]
    for at in range(0, len(several), most):
        yield [unit for unit in units if len(unit) == 1] + several[at : at + most]


def without_the_last_group(units: Sequence[UnitExamples], most: int) -> Groups:
    several = [unit for unit in units if len(unit) > 1]
    yield [unit for unit in units if len(unit) == 1] + several[:most]
    for at in range(most, len(several) - most, most):
        yield several[at : at + most]


@pytest.mark.parametrize(
    "groups",
    [twice_at_a_border, none_at_a_border, lone_ones_in_each_group, without_the_last_group],
    ids=lambda groups: groups.__name__,
)
def test_each_fault_at_a_border_is_seen(
    proven: tuple[Workspace, BatchShapes, torch.Tensor],
    groups: Callable[[Sequence[UnitExamples], int], Groups],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace, shapes, whole = proven
    monkeypatch.setattr(gradients, "_groups", lambda units, parameters: groups(units, 2))
    summed, units = summing(workspace, shapes), units_of(workspace)
    assert not torch.equal(summed(units), whole)
    others, most = movement(summed, units, range(len(units)))
    assert others > 0 or most > STEPS
