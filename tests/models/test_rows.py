"""Adapters on modules that flatten records × tokens give each record its own gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cloister.errors import PreflightError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from cloister.training.proof import prove
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import tiny
from tests.support.isolation import CONFIG, PLAN


def opened(folder: Path, name: str, *targets: str, **lora: Any) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(tiny(folder, name))),
        LoraConfig(**{"target_modules": targets, "train": "both", **lora}),
        TaskConfig(max_length=16),
        ("a", "b"),
        0,
    )


@pytest.mark.parametrize(
    ("name", "targets"),
    [("opt", ("fc1", "fc2")), ("qwen2-moe", ("shared_expert.up_proj", "shared_expert_gate"))],
)
def test_flattened_rows_find_their_records(
    tmp_path: Path, name: str, targets: tuple[str, ...]
) -> None:
    workspace = opened(tmp_path, name, *targets)
    assert prove(workspace, PLAN, CONFIG).shapes.longest == 16


def test_an_adapter_computes_what_it_did_without_the_shape(tmp_path: Path) -> None:
    network = opened(tmp_path, "opt", "fc1").network
    ids = torch.tensor([[4, 5, 6], [7, 8, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
        before = network(ids, mask)
        for module in network.modules():
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        assert torch.allclose(network(ids, mask), before, atol=1e-5)


def test_rows_that_a_router_chose_are_an_error_while_gradients_are_computed(
    tmp_path: Path,
) -> None:
    network = opened(tmp_path, "opt", "fc1").network
    layer = next(m for name, m in network.named_modules() if name.endswith(".1.fc1"))
    ids = torch.tensor([[4, 5, 6], [7, 8, 9]])
    network(ids, torch.ones_like(ids))
    for rows in (2, 6):  # records; records × tokens
        layer(torch.zeros(rows, 16))
    with torch.no_grad():
        layer(torch.zeros(5, 16))
    with pytest.raises(RuntimeError, match="5 rows for 2 records of 3 tokens"):
        layer(torch.zeros(5, 16))


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("xlnet", "layer_1", r"takes tokens before records.*an input of \(16, 2, 16\)"),
        ("mamba", "dt_proj", "is not called in a forward pass"),
    ],
)
def test_other_rows_are_refused_with_the_reason(
    tmp_path: Path, name: str, target: str, reason: str
) -> None:
    rank = 1 if name == "mamba" else 4
    workspace = opened(tmp_path, name, target, r=rank)
    with pytest.raises(PreflightError, match=rf"{target}.*{reason}.*choose other"):
        prove(workspace, PLAN, CONFIG)


ALL = {
    "bert": {"query", "key", "value", "output.dense", "intermediate.dense"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "opt": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "mamba": {"in_proj", "x_proj"},  # the others' weights are read beside their modules
}


@pytest.mark.parametrize("name", ALL)
def test_all_linear_is_every_linear_module_of_the_adapted_layers(tmp_path: Path, name: str) -> None:
    for top in (1, 0):
        modules = opened(tmp_path, name, "all-linear", top_layers=top).network.adapted_modules
        ends = {e for e in ALL[name] for m in modules if m.endswith(f".{e}")}
        assert ends == ALL[name]
        assert all(any(m.endswith(f".{e}") for e in ends) for m in modules)
        assert len({m.split(".1.")[0] for m in modules if ".1." in m}) == 1
        assert any(".0." in module for module in modules) == (top == 0)


def test_all_linear_trains_exactly(tmp_path: Path) -> None:
    workspace = opened(tmp_path, "opt", "all-linear", top_layers=0)
    assert prove(workspace, PLAN, CONFIG).shapes.longest == 16


def test_xlnet_has_no_default_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no default for xlnet.*lora\.train = "none"'):
        opened(tmp_path, "xlnet")
    with pytest.raises(UsageError, match="all-linear given, but xlnet has no linear module"):
        opened(tmp_path, "xlnet", "all-linear")
    head_alone = opened(tmp_path, "xlnet", "layer_1", train="none")
    assert set(head_alone.start) == {"head.weight", "head.bias"}
    assert prove(head_alone, PLAN, CONFIG).shapes.longest == 16
