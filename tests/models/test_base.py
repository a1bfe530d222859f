"""Bases are found, checked and loaded, or refused with a remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cloister.errors import ModelFileError, RefusedError
from cloister.models import base, packaged
from cloister.models.base import (
    check_base,
    find_base,
    load_backbone,
    weights_sha256,
)
from cloister.models.config import DEFAULT_BASE, ModelConfig
from cloister.recipe import DEFAULT_SHA256


def test_a_folder_is_its_own_base(bert: Path) -> None:
    assert find_base(str(bert)) == bert


def test_the_quickstart_s_base_is_found_without_the_hub_and_has_its_hash() -> None:
    folder = find_base(DEFAULT_BASE)
    assert weights_sha256(folder) == DEFAULT_SHA256


@pytest.mark.parametrize("wrong", ["/none/here", "./none", "word", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(wrong: str) -> None:
    with pytest.raises(ModelFileError, match="neither a folder here nor a hub id"):
        find_base(wrong)


def test_a_hub_id_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(ModelFileError, match=r"set model\.base to its folder"):
        find_base("nobody/nothing")


def test_a_packaged_base_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packaged, "_inside", lambda package, path: None)
    with pytest.raises(ModelFileError, match="extra `demo`"):
        find_base(DEFAULT_BASE)


def test_a_wrong_hash_names_both(bert: Path) -> None:
    found = weights_sha256(bert)
    assert check_base(bert, found) == check_base(bert, None) == found
    with pytest.raises(ModelFileError, match=f"have {found}, the study needs {'0' * 64}"):
        check_base(bert, "0" * 64)


def test_the_hash_of_shards_depends_on_each(bert: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(bert / "model.safetensors", tmp_path / f"{name}.safetensors")
    both = weights_sha256(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    assert weights_sha256(tmp_path) not in (both, weights_sha256(bert))


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"no \.safetensors"):
        weights_sha256(tmp_path)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(ModelFileError, match="does not load"):
        load_backbone(tmp_path, ModelConfig(), causal=False)


def test_weights_that_would_start_at_random_are_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "cut")
    weights = load_file(bert / "model.safetensors")
    removed = sorted(weights)[0]
    del weights[removed]
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="would start at random"):
        load_backbone(tmp_path / "cut", ModelConfig(), causal=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_frozen_and_of_the_type_asked_for(bert: Path, dtype: str) -> None:
    model = load_backbone(bert, ModelConfig(dtype=dtype), causal=False)  # type: ignore[arg-type]
    assert all(p.dtype == getattr(torch, dtype) for p in model.parameters())
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantization_without_a_gpu_is_refused(
    bert: Path, bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RefusedError, match=r"needs a CUDA GPU.*quantization = \"none\""):
        load_backbone(bert, ModelConfig(quantization=bits), causal=False)  # type: ignore[arg-type]


def test_quantization_without_bitsandbytes_names_the_extra(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RefusedError, match="extra `quantization`"):
        load_backbone(bert, ModelConfig(quantization="4bit"), causal=False)
