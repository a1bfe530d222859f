"""The shared input of query, key and value is stored once, with the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.input_types import inputs_as_they_are
from cloister.models.network import Network
from cloister.tasks.config import TaskConfig
from cloister.training import layer_gradients as layers_file
from cloister.training.gradients import per_record_hooks
from cloister.training.layer_gradients import known_layers
from cloister.training.shapes import candidates
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import move, random_units, summing

SHAPES = candidates(40, 256)


def opened(base: Path, dtype: str, **about: object) -> Workspace:
    lora = {
        "r": 2,
        "train": "both",
        "top_layers": 0,
        "target_modules": ("q_proj", "k_proj", "v_proj"),
    }
    workspace = open_workspace(
        ModelConfig(base=str(base), dtype=dtype),  # type: ignore[arg-type]
        LoraConfig(**(lora | about)),  # type: ignore[arg-type]
        TaskConfig(kind="causal-lm", max_length=40),
        (),
        0,
    )
    move(workspace, 0.3)
    return workspace


@contextmanager
def converted(network: Network, layers: object) -> Iterator[None]:
    """As peft does it."""
    yield


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", ["both", "b"])
def test_gradients_have_the_bits_of_inputs_that_peft_converts(
    llama: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, train: str
) -> None:
    workspace = opened(llama, dtype, train=train)
    units = random_units(workspace, 6, seed=1, most=2)
    found = summing(workspace, SHAPES)(units)
    monkeypatch.setattr(layers_file, "inputs_as_they_are", converted)
    assert torch.equal(summing(workspace, SHAPES)(units), found)
    assert found.any()


def kept(workspace: Workspace) -> list[Tensor]:
    """Tensors that a pass keeps of what a layer's projections read, memory that is shared once."""
    found: dict[int, Tensor] = {}
    width = workspace.network.base.config.hidden_size

    def note(tensor: Tensor) -> Tensor:
        if tensor.dim() == 3 and tensor.shape[-1] == width:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    units = random_units(workspace, 3, seed=1)
    batch = workspace.task.collate([unit[0] for unit in units])
    with (
        per_record_hooks(workspace.network),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        attention = workspace.network.base.model.layers[0].self_attn  # type: ignore[union-attr, index]
        inputs = torch.randn(*batch.input_ids.shape, width).to(workspace.network.base.dtype)
        inputs.requires_grad_(True)
        outputs = [getattr(attention, f"{name}_proj")(inputs) for name in "qkv"]
        assert all(one.requires_grad for one in outputs)
    return list(found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_tensor_is_kept_for_three_projections(
    llama: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    workspace = opened(llama, str(dtype).removeprefix("torch."))
    (only,) = kept(workspace)
    assert only.dtype == dtype
    monkeypatch.setattr(layers_file, "inputs_as_they_are", converted)
    assert len(kept(workspace)) == (3 if dtype == torch.bfloat16 else 1)


def test_afterwards_and_where_the_first_factor_rests_peft_converts(llama: Path) -> None:
    workspace = opened(llama, "bfloat16")
    adapted = [m for m in workspace.network.modules() if hasattr(m, "cast_input_dtype_enabled")]
    assert len(adapted) == 6
    layers = known_layers(workspace.network)
    assert layers is not None
    with inputs_as_they_are(workspace.network, layers):
        assert not any(module.cast_input_dtype_enabled for module in adapted)
    assert all(module.cast_input_dtype_enabled for module in adapted)
    workspace.train_names(frozenset(n for n in workspace.start if "lora_B" in n))
    with per_record_hooks(workspace.network):
        assert all(module.cast_input_dtype_enabled for module in adapted)
