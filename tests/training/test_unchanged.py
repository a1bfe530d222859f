"""Preflight and proof store the base once and detect any change of it."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloister.errors import PreflightError
from cloister.models.network import trained_parameters
from cloister.training.preflight import preflight
from cloister.training.proof import prove
from cloister.training.unchanged import PART, checksum, checksums, restored
from cloister.training.workspace import Workspace
from tests.support.isolation import CONFIG, PLAN, random_units, wide_workspace

Bases = Callable[[str], Path]


@pytest.fixture
def workspace(bases: Bases) -> Workspace:
    return wide_workspace(bases("bert"), "sequence-classification")


def held_shapes(wanted: set[tuple[int, ...]]) -> int:
    """Bytes of all tensors of such shapes in this process, memory that several share once."""
    found: dict[int, int] = {}
    for one in gc.get_objects():
        if issubclass(type(one), Tensor) and tuple(one.shape) in wanted:
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def test_no_copy_of_the_base_is_made(workspace: Workspace) -> None:
    network = workspace.network
    large = {tuple(p.shape) for p in network.parameters() if p.numel() >= 96 * 96}
    before, seen = held_shapes(large), []
    hook = network.register_forward_hook(lambda *_: seen.append(held_shapes(large)))
    examples = [unit[0] for unit in random_units(workspace, 2, seed=0)]
    try:
        preflight(network, workspace.task, examples)
        assert len(seen) >= 5
        prove(workspace, PLAN, CONFIG)
    finally:
        hook.remove()
    assert before > 0
    assert set(seen) == {before}


def test_what_trains_is_put_back_and_has_no_gradient(workspace: Workspace) -> None:
    network = workspace.network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    names = [name for name, _ in trained_parameters(network)]
    network.set_trained(frozenset(names[3:]))  # the first three rest, and are named
    with restored(network, frozenset(names[:3])):
        for name, parameter in network.named_parameters():
            if "lora_" in name or name.startswith("head."):
                parameter.data.add_(1)
                parameter.grad = torch.ones_like(parameter)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_a_checksum_tells_any_value_that_changes(dtype: torch.dtype) -> None:
    values = torch.arange(PART + 5).to(dtype)
    whole = checksum(values)
    assert whole == checksum(values.clone())
    for place in (0, 7, PART - 1, PART, PART + 4):
        other = values.clone()
        other[place] += 1 if dtype in (torch.uint8, torch.float64) else values[place].abs() + 1
        assert checksum(other) != whole
    assert checksum(values.flip(0)) != whole


def test_a_checksum_tells_places_of_different_parts() -> None:
    one, other = torch.zeros(2, 2 * PART)
    one[3], other[PART + 3] = 1.0, 1.0
    assert checksum(one) != checksum(other)


def test_two_zeros_of_different_sign_differ() -> None:
    assert checksum(torch.zeros(3)) != checksum(-torch.zeros(3))


def test_a_frozen_weight_that_moves_with_what_trains_is_refused(workspace: Workspace) -> None:
    head = workspace.network.head
    assert isinstance(head, nn.Linear)
    head.copy = nn.Parameter(head.weight.data.view(-1)[:4], requires_grad=False)
    assert "head.copy" in checksums(workspace.network)
    examples = [unit[0] for unit in random_units(workspace, 2, seed=0)]
    with pytest.raises(PreflightError, match="copy is frozen but moved in one step"):
        preflight(workspace.network, workspace.task, examples)
