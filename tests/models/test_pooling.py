"""Pooling: as the base was trained, and right on padded rows."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cloister.errors import ModelFileError
from cloister.models.pooling import Pooling, choose_pooling

HIDDEN = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [9.0, 9.0]]])  # the third token is padding
MASK = torch.tensor([[1, 1, 0]])
OUTPUT = SimpleNamespace(last_hidden_state=HIDDEN, pooler_output=torch.tensor([[5.0, 5.0]]))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("mean", [2.0, 2.0]), ("cls", [1.0, 0.0]), ("last", [3.0, 4.0]), ("pooler", [5.0, 5.0])],
)
def test_padding_is_never_pooled(mode: str, expected: list[float]) -> None:
    assert Pooling(mode, False)(OUTPUT, MASK).tolist() == [expected]  # type: ignore[arg-type]


def test_a_normalized_vector_has_the_length_of_its_width_s_root() -> None:
    pooled = Pooling("last", True)(OUTPUT, MASK)
    # (3, 4)/5 · √2
    assert pooled[0].tolist() == pytest.approx([0.6 * math.sqrt(2), 0.8 * math.sqrt(2)])


def with_modules(bert: Path, folder: Path, flags: dict[str, bool], normalize: bool) -> Path:
    shutil.copytree(bert, folder)
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    if normalize:
        modules.append({"type": "x.Normalize", "path": "2"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    return folder


def test_a_sentence_transformers_folder_says_how(bert: Path, tmp_path: Path) -> None:
    folder = with_modules(bert, tmp_path / "st", {"pooling_mode_mean_tokens": True}, True)
    assert choose_pooling(folder, "bert", "auto") == Pooling("mean", normalize=True)


def test_a_pooling_without_counterpart_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = with_modules(bert, tmp_path / "st", {"pooling_mode_max_tokens": True}, False)
    with pytest.raises(ModelFileError, match="not supported"):
        choose_pooling(folder, "bert", "auto")


def test_others_pool_by_architecture(bert: Path, gpt2: Path) -> None:
    assert choose_pooling(bert, "bert", "auto").mode == "pooler"
    assert choose_pooling(bert, "roberta", "auto").mode == "cls"
    assert choose_pooling(gpt2, "gpt2", "auto").mode == "last"
    assert choose_pooling(gpt2, "llama", "auto").mode == "last"
    assert choose_pooling(bert, "bert", "mean") == Pooling("mean", normalize=False)


def test_a_pooler_that_was_never_trained_is_not_used(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "cut")
    weights = load_file(bert / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler." not in name}
    save_file(kept, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    assert choose_pooling(tmp_path / "cut", "bert", "auto").mode == "cls"
    with pytest.raises(ModelFileError, match="holds no trained pooler"):
        choose_pooling(tmp_path / "cut", "bert", "pooler")
