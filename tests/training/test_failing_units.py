"""A unit that cannot be computed contributes zero and changes no bit of others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloister.tasks.task import Example
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.workspace import Workspace
from tests.support.isolation import LONGEST, random_units, summing, wide_workspace


class RaisingOn(nn.Module):
    """An embedding that cannot take one token, in the forward or in the backward pass."""

    def __init__(self, inner: nn.Module, token: int, error: type[Exception], back: bool) -> None:
        super().__init__()
        self.inner, self.token, self.error, self.back = inner, token, error, back

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.inner.weight  # type: ignore[assignment]
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.inner(ids)
        if not bool((ids == self.token).any()):
            return found
        if not self.back:
            raise self.error("this record fails")
        if torch.is_grad_enabled():
            found = found.detach().requires_grad_()
            found.register_hook(self._fail)
        return found

    def _fail(self, _: Tensor) -> None:
        raise self.error("this record fails on the way back")


# Each error, way, cache and size of a unit once; all together every night.
ONCE = [
    (RuntimeError, False, 0.0, 6),
    (torch.OutOfMemoryError, False, 1.0, 1),
    (IndexError, False, 0.0, 1),
    (RuntimeError, True, 0.0, 6),
]


@pytest.mark.parametrize(
    ("error", "back", "cache", "most"),
    [
        pytest.param(*case, marks=[] if case in ONCE else pytest.mark.nightly)
        for error, back in sorted({case[:2] for case in ONCE}, key=str)
        for cache in (0.0, 1.0)
        for most in (1, 6)
        for case in [(error, back, cache, most)]
    ],
)
def test_a_unit_that_fails_contributes_zero_and_changes_no_other(
    bases: Callable[[str], Path],
    real: tuple[Workspace, BatchShapes],
    most: int,
    cache: float,
    error: type[Exception],
    back: bool,
) -> None:
    if back and cache:
        pytest.skip("kept states have no way back")
    workspace = wide_workspace(
        bases("bert"), "sequence-classification", cache=cache, top_layers=1 if cache else 0
    )
    shapes = real[1]  # proven of the same base
    summed = summing(workspace, shapes)
    poison = 5
    sound = [
        tuple(Example(tuple(max(i, poison + 1) for i in e.input_ids), e.target) for e in unit)
        for unit in random_units(workspace, 20, seed=13, most=most)
    ]
    expected = summed(sound)
    bad = list(sound[7])
    bad[-1] = Example((poison, *bad[-1].input_ids[1:]), bad[-1].target)
    embeddings = workspace.network.backbone.get_input_embeddings()
    workspace.network.backbone.set_input_embeddings(RaisingOn(embeddings, poison, error, back))
    without = summed([*sound[:7], *sound[8:]])
    assert torch.equal(summed([*sound, tuple(bad)]), expected)
    assert torch.equal(summed([*sound[:7], tuple(bad), *sound[8:]]), without)
    assert torch.equal(summed(sound), expected)  # nothing of the failure is left
    # Padding is in every batch: a device that is gone is nobody's record.
    workspace.network.backbone.set_input_embeddings(RaisingOn(embeddings, 0, error, back))
    with pytest.raises(error):
        summed(sound)


class RaisingTwice(RaisingOn):
    """Lacks memory in the first two passes with the token: that of all, and the first alone."""

    left = 2

    def forward(self, ids: Tensor) -> Tensor:
        if self.left and bool((ids == self.token).any()):
            self.left -= 1
            raise self.error("not now")
        found: Tensor = self.inner(ids)
        return found


@pytest.mark.parametrize("most", [1, 6])
def test_a_lack_that_passes_costs_no_unit_anything(
    bases: Callable[[str], Path], real: tuple[Workspace, BatchShapes], most: int
) -> None:
    workspace = wide_workspace(bases("bert"), "sequence-classification", cache=0.0, top_layers=0)
    summed = summing(workspace, real[1])  # proven of the same base
    token = 5
    units = [
        tuple(Example(tuple(max(i, token + 1) for i in e.input_ids), e.target) for e in unit)
        for unit in random_units(workspace, 8, seed=13, most=most)
    ]
    first = units[3][0]
    units[3] = (Example((token, *first.input_ids[1:]), first.target), *units[3][1:])
    expected = summed(units)
    backbone = workspace.network.backbone
    lacking = RaisingTwice(backbone.get_input_embeddings(), token, MemoryError, back=False)
    backbone.set_input_embeddings(lacking)
    assert torch.equal(summed(units), expected)
    assert not lacking.left


@pytest.mark.parametrize(
    "record",
    [
        Example((2, 10**6, 3), 0),
        Example((2, -1, 3), 0),
        Example((2,) * (LONGEST + 1), 0),
        Example((2, 5, 3), 99),
        Example((2, 5, 3), -1),
        Example((), 0),
        Example((2, 5, 3), 0, segments=(0, 1, 7)),
        Example((2, 5, 3), 0, segments=(0, -1, 1)),
        Example((2, 5, 3), 0, segments=(0, 1)),
    ],
)
def test_a_record_that_does_not_fit_is_left_out_before_any_device(
    real: tuple[Workspace, BatchShapes], record: Example
) -> None:
    workspace, shapes = real
    summed = summing(workspace, shapes)
    units = random_units(workspace, 5, seed=14)
    expected = summed(units)
    assert torch.equal(summed([*units, (record,)]), expected)
    assert torch.equal(summed([(*units[0], record), *units[1:]]), expected)


def test_an_empty_unit_contributes_zero(real: tuple[Workspace, BatchShapes]) -> None:
    workspace, shapes = real
    units = random_units(workspace, 5, seed=15, most=3)
    for cut in (shapes, one_by_one(LONGEST)):
        summed = summing(workspace, cut)
        assert torch.equal(summed([(), *units, ()]), summed(units))
        assert not summed([(), ()]).any()
        assert not summed([]).any()
