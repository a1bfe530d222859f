"""Ranks by module and rsLoRA's scaling agree with peft, or are refused."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel

from cloister.adapter.tensors import Adapter
from cloister.data.config import DataConfig
from cloister.errors import UsageError
from cloister.export.adapter_folder import ReleaseFacts, export, load_released
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.lora import alpha_at
from cloister.tasks.config import TaskConfig
from cloister.training.workspace import Workspace
from tests.support.studies import NOTES, small_workspace

IDS = torch.tensor([[2, 5, 6, 9, 3]])
FIELDS = [
    {"rslora": True},
    {"rank_pattern": ("query=2", "layer.1.attention.self.value = 6")},
    {"rslora": True, "rank_pattern": ("value=8",)},
]


def scalings(workspace: Workspace) -> dict[str, dict[str, float]]:
    modules: Any = workspace.network.backbone.named_modules()
    return {name: dict(m.scaling) for name, m in modules if hasattr(m, "lora_A")}


def ranks(workspace: Workspace) -> dict[str, int]:
    return {
        name.split("encoder.")[1].partition(".lora_A")[0]: array.shape[0]
        for name, array in workspace.start.items()
        if "lora_A" in name
    }


def test_rslora_divides_by_the_root_of_the_rank(bert: Path) -> None:
    plain = scalings(small_workspace(bert, r=4, alpha=8.0))
    stable = scalings(small_workspace(bert, r=4, alpha=8.0, rslora=True))
    assert {s["default"] for s in plain.values()} == {2.0}
    assert {s["default"] for s in stable.values()} == {4.0}


@pytest.mark.parametrize("rslora", [False, True])
def test_a_residual_of_another_rank_is_scaled_as_the_adapter_is(bert: Path, rslora: bool) -> None:
    found = scalings(small_workspace(bert, r=2, residual=8, rslora=rslora))
    for scaling in found.values():
        assert scaling["residual"] == pytest.approx(scaling["default"], rel=1e-12)


def test_alpha_at_another_rank_keeps_the_scale() -> None:
    lora = LoraConfig(r=4, alpha=8.0)
    assert alpha_at(lora, 16) / 16 == lora.alpha / 4
    stable = LoraConfig(r=4, alpha=8.0, rslora=True)
    assert alpha_at(stable, 16) / math.sqrt(16) == stable.alpha / math.sqrt(4)


def test_a_pattern_sets_the_ranks_of_the_modules_that_it_names(bert: Path) -> None:
    found = ranks(small_workspace(bert, r=4, rank_pattern=FIELDS[1]["rank_pattern"]))
    assert found == {
        "layer.0.attention.self.query": 2,
        "layer.0.attention.self.value": 4,
        "layer.1.attention.self.query": 2,
        "layer.1.attention.self.value": 6,
    }


@pytest.mark.parametrize("fields", FIELDS)
def test_peft_loads_the_adapter_bit_for_bit(
    bert: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    opened, rng = small_workspace(bert, **fields), np.random.default_rng(0)
    adapter = Adapter({n: rng.normal(size=a.shape) for n, a in opened.start.items()})
    about = ReleaseFacts(
        ModelConfig(base=str(bert)),
        LoraConfig(train="both", top_layers=0, **fields),
        TaskConfig(max_length=16, labels=tuple(sorted(NOTES))),
        DataConfig(),
        0,
    )
    export(tmp_path, opened, adapter, about)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["use_rslora"] is bool(fields.get("rslora"))
    assert config["rank_pattern"] == about.lora.ranks_by_module()
    with warnings.catch_warnings():  # peft asks transformers for a property by its old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        loaded = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(bert), str(tmp_path))
    loaded.eval()
    again = load_released(tmp_path)[1].network
    with torch.no_grad():
        expected = opened.network.backbone(input_ids=IDS).last_hidden_state
        assert torch.equal(loaded(input_ids=IDS).last_hidden_state, expected)
        assert torch.equal(again.backbone(input_ids=IDS).last_hidden_state, expected)
    assert (expected - AutoModel.from_pretrained(bert)(IDS).last_hidden_state).norm() > 0.1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("query", "a module's name, = and a rank"),
        ("query=0", "a module's name, = and a rank"),
        ("que(ry=2", "a module's name, = and a rank"),
        ("query=2000", "a rank of at most 1024"),
    ],
)
def test_a_line_that_says_no_rank_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LoraConfig(rank_pattern=(pattern,))


def test_what_does_not_go_with_a_pattern_is_refused(bert: Path) -> None:
    with pytest.raises(UsageError, match="each name only once"):
        LoraConfig(rank_pattern=("query=2", "query=3"))
    with pytest.raises(UsageError, match=r"cannot be combined with lora\.residual"):
        LoraConfig(rank_pattern=("query=2",), residual=3)
    with pytest.raises(UsageError, match=r"cannot be combined with lora\.ranks"):
        LoraConfig(r=4, ranks=(2, 4), rank_pattern=("query=2",))
    with pytest.raises(UsageError, match="key matches no adapted module"):
        small_workspace(bert, rank_pattern=("key=2",))
    with pytest.raises(UsageError, match=r"lora\.rank_pattern: 17 given"):
        small_workspace(bert, rank_pattern=("query=17",))
