"""A machine computes on the device that its file names, and on no other one.

GPUs are stood in for here: what a GPU computes is `benchmarks/gpu.sh`'s to show.
"""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cloister.errors import PreflightError, RefusedError
from cloister.models import device
from cloister.models.build import build_network
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.device import device_words, find_device, free_bytes, unused_gpu
from cloister.tasks.config import TaskConfig
from cloister.training.preflight import refuse_known
from cloister.training.proof import Proof
from cloister.training.workspace import open_workspace
from tests.support.isolation import CONFIG, PLAN
from tests.support.studies import small_workspace


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device, "DRIVERS", ())
    return monkeypatch


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (5, 9))
    return monkeypatch


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "mps"])
def test_what_is_not_here_is_refused_and_nothing_falls_back(
    bert: Path, no_gpu: pytest.MonkeyPatch, asked: str
) -> None:
    with pytest.raises(RefusedError, match=rf"machine\.device: {asked} given"):
        find_device(asked)
    with pytest.raises(RefusedError, match=rf"machine\.device: {asked} given"):
        open_workspace(
            ModelConfig(base=str(bert)),
            LoraConfig(),
            TaskConfig(max_length=16),
            ("a", "b"),
            0,
            device=asked,
        )


def test_a_refusal_says_what_to_do(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setattr(torch.version, "cuda", None)
    with pytest.raises(RefusedError, match=r"install the one of locks/cuda\.txt"):
        find_device("cuda")
    no_gpu.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(RefusedError, match=r"deploy/systemd/gpu\.conf"):
        find_device("cuda")


def test_auto_is_the_gpu_where_torch_can_use_one(two_gpus: pytest.MonkeyPatch) -> None:
    assert find_device(None) == torch.device("cuda")
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(RefusedError, match=r"torch finds 2 GPU\(s\)"):
        find_device("cuda:2")
    assert device_words(torch.device("cuda")) == "cuda:0 (GPU 0)"
    assert device_words(torch.device("cuda:1")) == "cuda:1 (GPU 1)"
    assert free_bytes(torch.device("cuda")) == 5
    assert free_bytes(torch.device("cpu")) is None


def test_auto_on_the_cpu_beside_a_gpu_is_said(
    no_gpu: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert find_device(None) == torch.device("cpu")
    assert unused_gpu() == ""
    assert not caplog.records
    (tmp_path / "version").touch()
    no_gpu.setattr(device, "DRIVERS", (tmp_path / "version",))
    assert find_device(None) == torch.device("cpu")
    assert "the CPU is used" in caplog.text
    assert device_words(torch.device("cpu")) == "cpu"


def test_cublas_gets_a_fixed_workspace_before_a_gpu_is_used(two_gpus: pytest.MonkeyPatch) -> None:
    two_gpus.delenv(device.CUBLAS, raising=False)
    find_device("cpu")
    assert device.CUBLAS not in os.environ
    two_gpus.setenv(device.CUBLAS, ":4096:8")  # so that it is taken out again
    two_gpus.delenv(device.CUBLAS)
    find_device("cuda")
    assert os.environ[device.CUBLAS] == ":4096:8"
    two_gpus.setenv(device.CUBLAS, ":16:8")
    assert find_device(None) == torch.device("cuda")
    assert os.environ[device.CUBLAS] == ":16:8"
    two_gpus.setenv(device.CUBLAS, ":0:0")
    with pytest.raises(RefusedError, match=r":0:0.*needs results that repeat"):
        find_device("cuda")


def test_a_quantized_base_does_not_go_to_the_cpu(bert: Path) -> None:
    with pytest.raises(RefusedError, match=r"model\.quantization: 4bit needs a CUDA GPU"):
        build_network(
            bert, ModelConfig(quantization="4bit"), LoraConfig(), "text", 2, 0, device="cpu"
        )


def test_private_training_on_mps_is_refused_with_its_reason() -> None:
    network = SimpleNamespace(device=torch.device("mps"))
    with pytest.raises(PreflightError, match="mps has no float64"):
        refuse_known(network)  # type: ignore[arg-type]


def test_the_way_attention_is_computed_is_part_of_the_proof(bert: Path) -> None:
    keys, found = set(), []
    for attention in (None, "sdpa", "eager"):
        opened = open_workspace(
            ModelConfig(base=str(bert)),
            LoraConfig(),
            TaskConfig(max_length=16),
            ("a", "b"),
            0,
            attention=attention,
        )
        found.append(opened.network.base.config._attn_implementation)
        keys.add(Proof.key_of(opened, PLAN, CONFIG, max_adapter_value=1.0))
    assert found == ["sdpa", "sdpa", "eager"]
    assert len(keys) == 2


def test_a_network_is_where_it_was_asked_to_be(bert: Path) -> None:
    assert small_workspace(bert).network.device == find_device(None)
