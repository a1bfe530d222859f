"""A GGUF adapter has the names and shapes of gguf's own tables, and computes what PEFT computes."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from cloister.errors import BadFileError, UsageError
from cloister.export.gguf_adapter import ARCHITECTURES, turned, write_gguf
from cloister.export.vllm_rules import vllm_problems
from tests.support.architectures import LLAMA

# peft asks transformers for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What gguf's tables call these in a layer.
NAMES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
CONFIGS = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "smollm3": "SmolLM3Config",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "gemma": "GemmaConfig",
    "gemma2": "Gemma2Config",
    "gemma3_text": "Gemma3TextConfig",
}


def saved(folder: Path, family: str, **options: Any) -> Any:
    """An adapter of a tiny base with random factors, saved by PEFT; the adapted base."""
    torch.manual_seed(0)
    config = getattr(transformers, CONFIGS[family])(**{**LLAMA, "num_attention_heads": 4})
    model = transformers.AutoModelForCausalLM.from_config(config)
    settings = {"r": 3, "lora_alpha": 6, "target_modules": LINEAR, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**{**settings, **options}))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.peft_config["default"].base_model_name_or_path = "some/base"
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return adapted


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_every_family_is_tried() -> None:
    assert CONFIGS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("family", CONFIGS)
def test_names_and_shapes_are_those_of_the_tables(tmp_path: Path, family: str) -> None:
    adapted = saved(tmp_path, family)
    config = adapted.config
    assert write_gguf(tmp_path, config, tmp_path / "a.gguf") == 14
    fields, tensors = read(tmp_path / "a.gguf")
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 6.0
    assert fields["general.architecture"] == ARCHITECTURES[family].name
    known = gguf.MODEL_TENSORS[
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == ARCHITECTURES[family].name)
    ]
    table = {gguf.TENSOR_NAMES[kind] for kind in known}
    for layer in range(2):
        for name, module in zip(NAMES, LINEAR, strict=True):
            assert f"blk.{{bid}}.{name}" in table
            base = dict(adapted.named_modules())[
                f"base_model.model.model.layers.{layer}."
                + ("self_attn." if "attn" in name else "mlp.")
                + module
            ].base_layer
            place = f"blk.{layer}.{name}.weight"
            assert tensors[f"{place}.lora_a"].shape == (3, base.in_features)
            assert tensors[f"{place}.lora_b"].shape == (base.out_features, 3)
    assert len(tensors) == 28


def test_a_turned_query_scores_as_llama_cpp_s_rotation_expects() -> None:
    # transformers rotates (x_i, x_{i+d/2}); llama.cpp's Llama rotates neighbours (x_2i, x_2i+1).
    heads, width = 2, 6
    rows = np.arange(heads * width, dtype=np.float32).reshape(-1, 1)
    expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert turned(rows, heads).ravel().tolist() == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 24}},
    ],
    ids=["plain", "rsLoRA", "patterns"],
)
def test_what_is_added_to_a_weight_is_what_peft_adds(tmp_path: Path, options: Any) -> None:
    adapted = saved(tmp_path, "llama", **options)
    write_gguf(tmp_path, adapted.config, tmp_path / "a.gguf")
    fields, tensors = read(tmp_path / "a.gguf")
    layer = adapted.base_model.model.model.layers[1]
    places = {
        "attn_q": (layer.self_attn.q_proj, 4),
        "attn_k": (layer.self_attn.k_proj, 1),
        "attn_v": (layer.self_attn.v_proj, None),
        "ffn_down": (layer.mlp.down_proj, None),
    }
    for name, (module, heads) in places.items():
        a, b = (tensors[f"blk.1.{name}.weight.lora_{half}"] for half in "ab")
        found = b @ a * (fields["adapter.lora.alpha"] / len(a))  # as llama.cpp scales
        expected = module.get_delta_weight("default").detach().numpy()
        if heads is not None:
            expected = turned(expected, heads)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_other_families_and_kinds_are_refused_by_name(tmp_path: Path) -> None:
    config = saved(tmp_path, "llama").config
    with pytest.raises(UsageError, match="cannot write a GGUF adapter for a base of type gpt2"):
        write_gguf(tmp_path, transformers.GPT2Config(), tmp_path / "a.gguf")
    (tmp_path / "head.safetensors").touch()
    with pytest.raises(UsageError, match="cannot hold; use cloister predict"):
        write_gguf(tmp_path, config, tmp_path / "a.gguf")
    (tmp_path / "head.safetensors").unlink()
    (tmp_path / "adapter_model.safetensors").write_bytes(b"garbage")
    with pytest.raises(BadFileError, match="missing or damaged"):
        write_gguf(tmp_path, config, tmp_path / "a.gguf")


def test_dora_is_refused(tmp_path: Path) -> None:
    config = saved(tmp_path, "llama", use_dora=True).config
    with pytest.raises(UsageError, match="DoRA"):
        write_gguf(tmp_path, config, tmp_path / "a.gguf")


def test_vllm_s_rules(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    assert vllm_problems(tmp_path) == []
    path = tmp_path / "adapter_config.json"
    fine = json.loads(path.read_text())
    for change, word in (
        ({"r": 1024}, "r: 1024"),
        ({"rank_pattern": {"q_proj": 600}}, "r: 600"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path: is empty"),
        ({"target_modules": []}, "target_modules: is empty"),
    ):
        path.write_text(json.dumps({**fine, **change}))
        (problem,) = vllm_problems(tmp_path)
        assert word in problem
    path.write_text(json.dumps(fine))
    (tmp_path / "head.safetensors").touch()
    assert "cloister predict" in vllm_problems(tmp_path)[0]
