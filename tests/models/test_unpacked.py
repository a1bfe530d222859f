"""A GGUF file is unpacked once as a base, hashed, and refused if it would be misread."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister.errors import ModelFileError
from cloister.models import unpacked as unpacked_file
from cloister.models.base import (
    base_at_hand,
    check_base,
    find_base,
    load_backbone,
    load_tokenizer,
    weights_sha256,
)
from cloister.models.config import ModelConfig
from cloister.models.unpacked import RECORD, cache_folder, unpacked
from tests.support.gguf_files import byte_tokens, write_llama

IDS = torch.tensor([[1, 40, 50, 260, 262, 9, 3]])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cloister" / "bases"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(file)
    return file


def test_what_it_computes_is_what_was_written(cache: Path, tmp_path: Path) -> None:
    written = write_llama(tmp_path / "tiny.gguf")
    folder = find_base(str(tmp_path / "tiny.gguf"))
    assert folder.parent == cache == cache_folder()
    assert not list(cache.glob(".*.part"))
    read = load_backbone(folder, ModelConfig(), causal=True)
    with torch.no_grad():
        assert torch.equal(read(IDS).logits, written(IDS).logits)


def test_quantized_weights_are_near_to_what_was_written(cache: Path, tmp_path: Path) -> None:
    written = write_llama(tmp_path / "tiny.gguf", quantized=True)
    read = load_backbone(unpacked(tmp_path / "tiny.gguf"), ModelConfig(), causal=True)
    for (name, one), two in zip(written.named_parameters(), read.parameters(), strict=True):
        # Q8_0 rounds to 127 steps each side of zero, of a block's largest value.
        assert (one - two).abs().max() <= one.abs().max() / 127, name
        assert two.dtype == torch.float32


def test_its_hash_is_the_file_s(cache: Path, sound: Path) -> None:
    folder = unpacked(sound)
    digest = folder.name
    assert weights_sha256(folder) == check_base(folder, digest) == digest
    with pytest.raises(ModelFileError, match="the study needs"):
        check_base(folder, "0" * 64)
    # Elsewhere a record is believed of nothing: the folder's own weights are hashed.
    elsewhere = Path(shutil.copytree(folder, cache.parent / digest))
    assert weights_sha256(elsewhere) != digest


def test_it_is_unpacked_once(cache: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(sound)
    monkeypatch.setattr(unpacked_file, "_unpack", None)
    assert unpacked(sound) == find_base(str(sound)) == folder


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "new.json"])
def test_a_changed_cache_is_not_used(cache: Path, sound: Path, name: str) -> None:
    folder = unpacked(sound)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelFileError, match="changed after it was unpacked; remove it"):
        check_base(folder, folder.name)


def test_a_folder_without_its_record_is_made_again(cache: Path, sound: Path) -> None:
    folder = unpacked(sound)
    (folder / RECORD).unlink()
    (folder / "model.safetensors").write_bytes(b"")
    assert weights_sha256(unpacked(sound)) == folder.name


def test_what_lies_beside_the_file_is_not_read(cache: Path, tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny.gguf")
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json", "tokenizer.json"):
        (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoConfig": "own.Config"}}))
    tokenizer = load_tokenizer(unpacked(tmp_path / "tiny.gguf"))
    assert len(tokenizer) == len(byte_tokens())


def test_the_tokenizer_and_its_template_are_the_file_s(cache: Path, sound: Path) -> None:
    tokenizer = load_tokenizer(unpacked(sound))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (2, 3)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi there"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user hi there<|im_end|><|im_start|>assistant "
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (ids[0], tokenizer.decode(ids)) == (1, text)
    assert byte_tokens().index("Ġthere") in ids


def test_digits_are_split_as_the_file_says(tmp_path: Path, cache: Path) -> None:
    """Of two spaces before a digit, GPT-2's splitting gives one to the digit."""
    found = {}
    for pre in ("smollm", "gpt-2"):
        write_llama(tmp_path / f"{pre}.gguf", pre=pre)
        backend = load_tokenizer(unpacked(tmp_path / f"{pre}.gguf")).backend_tokenizer
        found[pre] = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("a  12")]
    assert found == {"smollm": ["a", "ĠĠ", "1", "2"], "gpt-2": ["a", "Ġ", "Ġ12"]}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown splitting": ({"pre": "made-up"}, "splits texts in an unknown way.*made-up"),
    "no splitting": ({"pre": None}, "splits texts in an unknown way"),
    "a tensor too few": ({"without": "blk.1.attn_q.weight"}, "has .* weights, but the llama"),
    "a tensor too many": (
        {"more": {"blk.1.other.weight": np.zeros((4, 4), np.float32)}},
        "would leave some out",
    ),
    "a rotary table": ({"more": {"rope_freqs.weight": np.zeros(8, np.float32)}}, "rope_freqs"),
    "layers that are not there": ({"llama__block_count": 10**9}, "not a sound GGUF"),
    "a layer too few": ({"llama__block_count": 1}, "tensors of 2 layers, but states 1"),
    "a huge layer": ({"llama__feed_forward_length": 2**23}, "has .* weights, but the llama"),
    "a huge number": ({"llama__embedding_length": 2**31}, "at most 16777216 is allowed"),
    "no heads": ({"llama__attention__head_count": 0}, "cannot be read as a llama"),
    "an end beyond the tokens": ({"tokenizer__ggml__eos_token_id": 9999}, "cannot be read as a"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_would_be_misread_is_refused(cache: Path, tmp_path: Path, name: str) -> None:
    changed, message = WRONG[name]
    write_llama(tmp_path / "tiny.gguf", **changed)
    with pytest.raises(ModelFileError, match=message):
        unpacked(tmp_path / "tiny.gguf")
    assert not [path for path in cache.glob("*") if path.is_dir()]


def test_one_of_another_architecture_is_refused_by_name(
    cache: Path, sound: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(sound.read_bytes().replace(b"llama", b"bertx"))
    with pytest.raises(ModelFileError, match=r"bertx.*not supported.*folder of safetensors"):
        unpacked(other)


def test_without_the_package_the_extra_is_named(
    cache: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gguf" else find(name)
    )
    with pytest.raises(ModelFileError, match="extra `llm`"):
        unpacked(sound)


def test_a_cache_that_cannot_be_written_names_the_variable(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match="set XDG_CACHE_HOME"):
        unpacked(sound)


def test_a_full_disk_is_told_before_anything_is_read(
    cache: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(sound.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ModelFileError, match="free some"):
        unpacked(sound)


def test_a_coordinator_names_no_file_of_this_machine(
    cache: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sound.parent.parent)
    for name in (str(sound), f"{sound.parent.name}/{sound.name}", f"./{sound.name}"):
        with pytest.raises(ModelFileError, match=r"not a hub id|not on this machine"):
            base_at_hand(name)
    assert not cache.exists()


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ModelFileError, match=r"nothing.gguf does not exist here"):
        find_base("folder/nothing.gguf")
