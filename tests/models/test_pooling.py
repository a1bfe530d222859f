"""Pooling follows the folder's setting or is the mean, and is correct on padded rows."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cloister.errors import ModelFileError
from cloister.models.base import load_backbone
from cloister.models.config import ModelConfig, PoolingMode, VectorMode
from cloister.models.pooling import Pooling, choose_pooling
from tests.support.architectures import ARCHITECTURES, ENCODERS, tiny

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


def with_modules(bert: Path, folder: Path, flags: dict[str, object], normalize: bool) -> Path:
    shutil.copytree(bert, folder)
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    if normalize:
        modules.append({"type": "x.Normalize", "path": "2"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    return folder


def chosen(
    folder: Path, mode: PoolingMode = "auto", normalize: bool | None = None, *, causal: bool = False
) -> Pooling:
    """What a base of a folder is pooled by."""
    network = load_backbone(folder, ModelConfig(), causal=causal)
    return choose_pooling(folder, network, mode, normalize)


FOLDERS: list[tuple[dict[str, object], VectorMode]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
    ({"pooling_mode_lasttoken": True}, "last"),
    # From version 6 of sentence-transformers.
    ({"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}, "mean"),
    ({"pooling_mode": "cls"}, "cls"),
    ({"pooling_mode": "lasttoken"}, "last"),
    ({"pooling_mode": ["mean"]}, "mean"),
]


@pytest.mark.parametrize(("told", "mode"), FOLDERS)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_sentence_transformers_folder_says_how(
    bert: Path, tmp_path: Path, told: dict[str, object], mode: VectorMode, normalize: bool
) -> None:
    folder = with_modules(bert, tmp_path / "st", told, normalize)
    assert chosen(folder) == chosen(folder, "trained") == Pooling(mode, normalize)
    assert "modules.json" in str(chosen(folder))


@pytest.mark.parametrize("told", [told for told, _ in FOLDERS])
def test_a_pooling_s_own_folder_is_enough(
    bert: Path, tmp_path: Path, told: dict[str, object]
) -> None:
    folder = with_modules(bert, tmp_path / "st", told, False)
    expected = chosen(folder)
    (folder / "modules.json").unlink()
    assert chosen(folder) == expected
    assert "1_Pooling" in str(chosen(folder))


@pytest.mark.parametrize(
    "told",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["mean", "cls"]},  # one beside the other, twice as wide
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {},
    ],
)
def test_a_pooling_without_counterpart_is_refused(
    bert: Path, tmp_path: Path, told: dict[str, object]
) -> None:
    folder = with_modules(bert, tmp_path / "st", told, False)
    with pytest.raises(ModelFileError, match="not supported"):
        chosen(folder)
    assert chosen(folder, "mean") == Pooling("mean", False)


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '[{"type": "x.Transformer"}]', '"text"'])
@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json"])
def test_damaged_files_say_what_to_set(bert: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = with_modules(bert, tmp_path / "st", {"pooling_mode": "cls"}, False)
    (folder / name).write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.pooling: .*set model\.pooling to"):
        chosen(folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_that_says_nothing_is_pooled_by_its_mean_or_a_decoder_s_last(
    tmp_path: Path, name: str
) -> None:
    """`save_pretrained` writes a pooler's weights whatever it was trained for."""
    pooling = chosen(tiny(tmp_path, name))
    assert pooling == Pooling("mean" if name in ENCODERS else "last", normalize=False)
    assert pooling.why


SAVED_FROM = {
    "BertForSequenceClassification": "pooler",
    "BertForPreTraining": "pooler",
    "BertForNextSentencePrediction": "pooler",
    "BertForMaskedLM": "mean",
    "BertForTokenClassification": "mean",
    "BertModel": "mean",
    "AlbertForPreTraining": "pooler",
    "RobertaForSequenceClassification": "cls",
    "DistilBertForSequenceClassification": "cls",
    "DebertaV2ForSequenceClassification": "cls",  # the pooler is the classifier's
    "ElectraForPreTraining": "mean",
    "ModernBertForSequenceClassification": "cls",
    "LlamaForSequenceClassification": "last",
}


@pytest.mark.parametrize("saved", SAVED_FROM)
def test_a_class_whose_training_reads_one_vector_says_so(tmp_path: Path, saved: str) -> None:
    names = sorted(ARCHITECTURES, key=len, reverse=True)  # DistilBERT before BERT
    name = next(n for n in names if saved.lower().startswith(n.replace("-", "")))
    config_name, values, _ = ARCHITECTURES[name]
    config = getattr(transformers, config_name)(**values)
    getattr(transformers, saved)(config).save_pretrained(tmp_path)
    pooling = chosen(tmp_path)
    assert pooling.mode == SAVED_FROM[saved]
    assert (saved in pooling.why) == (pooling.mode in ("pooler", "cls"))
    network = load_backbone(tmp_path, ModelConfig(), causal=False)
    ids = torch.tensor([[2, 5, 3]])
    output = network(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert pooling(output, torch.ones_like(ids)).shape == (1, 16)


def test_what_is_asked_for_is_taken(bert: Path, tmp_path: Path) -> None:
    assert chosen(bert, "mean") == Pooling("mean", normalize=False)
    assert chosen(bert, "mean", True) == Pooling("mean", normalize=True)
    assert chosen(bert, "auto", True) == Pooling("mean", normalize=True)
    assert chosen(bert, "cls", False) == Pooling("cls", normalize=False)
    folder = with_modules(bert, tmp_path / "st", {"pooling_mode": "cls"}, True)
    assert chosen(folder, "auto", False) == Pooling("cls", normalize=False)
    assert "model.normalize = false" in str(chosen(folder, "auto", False))
    assert chosen(folder, "mean") == Pooling("mean", normalize=False)


def test_a_study_of_an_earlier_version_is_pooled_as_it_was(bert: Path, gpt2: Path) -> None:
    assert chosen(bert, "trained") == Pooling("pooler", normalize=False)
    assert chosen(gpt2, "trained") == Pooling("last", normalize=False)


def test_a_pooler_that_was_never_trained_is_not_used(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "cut")
    weights = load_file(bert / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler." not in name}
    save_file(kept, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    assert chosen(tmp_path / "cut").mode == "mean"
    assert chosen(tmp_path / "cut", "trained").mode == "cls"
    with pytest.raises(ModelFileError, match="holds no trained pooler"):
        chosen(tmp_path / "cut", "pooler")
