"""Fuzzes a released adapter's description, and the files of a received run."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import example, given

from cloister.data.config import DataConfig
from cloister.evidence.fingerprint import adapter_files, adapter_sha256, base_sha256
from cloister.export.adapter_folder import VERSION, ReleaseFacts, read_released
from cloister.fields import as_table
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.config import TaskConfig
from tests.support.fuzzing import as_json, fuzz, hostile_bytes, must_read, odd, reshaped

SOUND = {
    "version": VERSION,
    "seed": 7,
    "model": as_table(ModelConfig()),
    "lora": as_table(LoraConfig()),
    "task": as_table(TaskConfig()),
    "data": as_table(DataConfig()),
    "pooling": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapter")


def read(folder: Path, content: bytes) -> object:
    (folder / "cloister.json").write_bytes(content)
    size = len(content)
    must_read(lambda: base_sha256(adapter_files(folder)), size)
    must_read(lambda: adapter_sha256(adapter_files(folder)), size)
    return must_read(lambda: read_released(folder), size)


def test_a_sound_one_is_read(folder: Path) -> None:
    found = read(folder, json.dumps(SOUND, indent=2).encode())
    assert isinstance(found, ReleaseFacts)
    assert dataclasses.asdict(found)["seed"] == 7


@fuzz
@given(hostile_bytes(json.dumps(SOUND).encode()) | reshaped(SOUND).map(as_json) | odd.map(as_json))
@example(b"[" * 100_000)
@example(b"[]," * 1_000_000)
@example(as_json({**SOUND, "model": []}))
@example(as_json({**SOUND, "seed": None}))
@example(as_json({**SOUND, "seed": "x" * 10_000}))
@example(as_json({name: SOUND[name] for name in SOUND if name != "seed"}))
@example(as_json({**SOUND, "version": True}))
def test_cloister_json(folder: Path, content: bytes) -> None:
    read(folder, content)
