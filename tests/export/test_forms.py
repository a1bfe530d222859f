"""Exported models load without Cloister and compute the same as the study's network."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from cloister.errors import BadFileError, UsageError
from cloister.export.forms.finished import open_finished
from cloister.export.forms.table import FORMS
from cloister.export.forms.writing import CLOSE, Export, export_model
from cloister.serving.model import load
from cloister.serving.predictions import Classified, Labelled, Scored, Tagged
from cloister.tasks.config import TaskConfig
from tests.support.architectures import DECODERS, ENCODERS, tiny
from tests.support.released import exported

LENGTH = 12
TEXTS = [
    "chest pain at rest",
    "fever",
    "the patient has a severe rash since monday and a mild cough and no fever",
]
KINDS = {
    "labels": TaskConfig(labels=("x", "y", "z"), max_length=LENGTH),
    "several": TaskConfig(
        kind="multi-label-classification", labels=("x", "y", "z"), max_length=LENGTH
    ),
    "scores": TaskConfig(kind="scoring", score_range=(0.0, 3.0), score_step=1.0, max_length=LENGTH),
    "pairs": TaskConfig(kind="text-pairs", labels=("yes", "no"), max_length=LENGTH),
    "tags": TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=LENGTH),
    "chat": TaskConfig(kind="causal-lm", max_length=24),
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, bert: Path, llama: Path) -> dict[str, Path]:
    """One adapter a task; those of sequences read the first token."""
    place = tmp_path_factory.mktemp("adapters")
    made = {}
    for name, task in KINDS.items():
        model = {"pooling": "cls"} if name not in ("tags", "chat") else {}
        base = llama if name == "chat" else bert
        made[name] = exported(place / name, base, task, model=model)
    return made


def written(adapter: Path, form: str, folder: Path) -> Export:
    return export_model(adapter, form, folder / form)


def piped(folder: Path, kind: str) -> Any:
    return pipeline(kind, model=str(folder), tokenizer=str(folder), device="cpu")


def test_a_pipeline_gives_cloister_s_probabilities(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    written(adapters["labels"], "merged", tmp_path)
    found = piped(tmp_path / "merged", "text-classification")(TEXTS, top_k=None, truncation=True)
    for shares, own in zip(found, load(adapters["labels"]).predict(TEXTS), strict=True):
        assert isinstance(own, Classified)
        named = {share["label"]: share["score"] for share in shares}
        assert named == pytest.approx(own.probabilities, abs=1e-5)


def test_a_pipeline_gives_sigmoids_of_several_labels_and_of_a_score(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("several", "scores"):
        export_model(adapters[name], "merged", tmp_path / name)
        found = piped(tmp_path / name, "text-classification")(TEXTS, top_k=None, truncation=True)
        for shares, own in zip(found, load(adapters[name]).predict(TEXTS), strict=True):
            named = {share["label"]: share["score"] for share in shares}
            if isinstance(own, Labelled):
                assert named == pytest.approx(own.probabilities, abs=1e-5)
            else:
                assert isinstance(own, Scored)
                assert 3 * named["score"] == pytest.approx(own.score, abs=3e-5)


def test_a_pipeline_reads_pairs(adapters: dict[str, Path], tmp_path: Path) -> None:
    written(adapters["pairs"], "merged", tmp_path)
    asked = [{"text": TEXTS[0], "text_pair": TEXTS[1]}, {"text": TEXTS[1], "text_pair": TEXTS[2]}]
    found = piped(tmp_path / "merged", "text-classification")(asked, top_k=None, truncation=True)
    own = load(adapters["pairs"]).predict([(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])])
    for shares, one in zip(found, own, strict=True):
        assert isinstance(one, Classified)
        named = {share["label"]: share["score"] for share in shares}
        assert named == pytest.approx(one.probabilities, abs=1e-5)


def test_a_pipeline_finds_the_same_entities(adapters: dict[str, Path], tmp_path: Path) -> None:
    written(adapters["tags"], "merged", tmp_path)
    tagger = piped(tmp_path / "merged", "token-classification")
    text = "the patient has a severe rash"
    [own] = load(adapters["tags"]).predict([text])
    assert isinstance(own, Tagged)
    best = {one["index"] - 1: one["entity"] for one in tagger(text, ignore_labels=[])}
    # One token a word, in the tiny tokenizer. BIO that begins with I is read as B.
    assert [best[place][2:] for place in range(6)] == [tag[2:] for tag in own.tags]


def test_a_recommender_s_items_are_outputs_of_the_merged_head(tmp_path: Path, bert: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item,text\na,fever\nb,cough and rash\nc,chest pain\nd,no headache\n")
    task = TaskConfig(kind="recommendation", items=str(items), max_length=LENGTH)
    adapter = exported(tmp_path / "adapter", bert, task, model={"pooling": "cls"})
    written(adapter, "merged", tmp_path)
    asked = {"top_k": None, "function_to_apply": "none"}
    found = piped(tmp_path / "merged", "text-classification")("chest pain; fever", **asked)
    workspace = load(adapter).workspace
    batch = workspace.tokenizer("chest pain; fever", return_tensors="pt")
    with torch.no_grad():
        own = workspace.network(batch["input_ids"], batch["attention_mask"])[0]
    named = {one["label"]: one["score"] for one in found}
    assert named == pytest.approx(dict(zip("abcd", own.tolist(), strict=True)), rel=1e-5)


def test_a_merged_chat_gives_the_study_s_logits_and_replies(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    written(adapters["chat"], "merged", tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    finished = open_finished(adapters["chat"])
    given = tokenizer(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        found = model(**given).logits
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    assert torch.allclose(found, finished.logits(inputs), atol=1e-5)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "rash"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    [own] = load(adapters["chat"]).predict(["rash"])
    assert tokenizer.decode(new, skip_special_tokens=True).startswith(own.reply[:20])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] * (name in ("several", "scores", "tags")))
        for name in KINDS
    ],
)
def test_onnxruntime_gives_the_same_logits_at_any_size(
    adapters: dict[str, Path], tmp_path: Path, name: str
) -> None:
    written(adapters[name], "onnx", tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    names = [one.name for one in session.get_inputs()]
    finished = open_finished(adapters[name])
    rng = np.random.default_rng(0)
    for rows, length in ((1, 1), (3, LENGTH), (2, 5)):
        ids = rng.integers(4, 20, size=(rows, length))
        mask = np.ones_like(ids)
        mask[0, length // 2 + 1 :] = 0
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given = {key: given[key] for key in names}
        expected = finished.logits({key: torch.from_numpy(v) for key, v in given.items()}).numpy()
        found = session.run(["logits"], given)[0]
        if found.ndim == 3:
            found, expected = found * mask[..., None], expected * mask[..., None]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [{"pooling": "mean"}, {"pooling": "mean", "normalize": True}, {"pooling": "pooler"}],
    ids=["mean", "one length", "pooler"],
)
def test_sentence_transformers_gives_the_study_s_vectors_and_logits(
    tmp_path: Path, bert: Path, model: dict[str, Any]
) -> None:
    adapter = exported(tmp_path / "adapter", bert, KINDS["labels"], model=model)
    written(adapter, "sentence-transformers", tmp_path)
    finished = open_finished(adapter)
    task, network = finished.task, finished.network
    batch = task.collate([task.encode(one) for one in records(TEXTS)])
    expected = network.pooled(batch).detach()
    if model.get("normalize"):
        expected = expected / expected.shape[1] ** 0.5
    own = SentenceTransformer(str(tmp_path / "sentence-transformers"), device="cpu")
    found = own.encode(TEXTS, convert_to_tensor=True)
    assert torch.allclose(found, expected, atol=1e-5)
    logits = finished.logits(network.inputs(batch))
    scores = [one["scores"] for one in own.encode(TEXTS, output_value=None)]
    assert torch.allclose(torch.stack(scores), logits, atol=1e-5)


def records(texts: list[str]) -> list[Any]:
    from cloister.data.records import TextRecord

    return [TextRecord(text, "x") for text in texts]


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_rounded_weights_are_smaller_and_near(
    tmp_path: Path, form: str, adapters: dict[str, Path]
) -> None:
    done = written(adapters["labels"], form, tmp_path)
    row = done.rows[1]
    # A weight of 8 (4) bits is off by at most 1/254 (1/14) of its row's (block's) largest.
    assert row.difference is not None
    assert CLOSE < row.difference < {"int8": 0.1, "int4": 0.5}[form]
    session = onnxruntime.InferenceSession(str(tmp_path / form / "model.onnx"))
    import onnx

    kinds = {node.op_type for node in onnx.load(tmp_path / form / "model.onnx").graph.node}
    assert ("MatMulInteger" if form == "int8" else "MatMulNBits") in kinds
    assert session.get_outputs()[0].name == "logits"


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        pytest.param("bert", {}, marks=pytest.mark.nightly),
        ("roberta", {}),
        ("distilbert", {}),
        ("electra", {}),
        pytest.param("albert", {}, marks=pytest.mark.nightly),
        pytest.param("mpnet", {}, marks=pytest.mark.nightly),
        pytest.param("xlm-roberta", {}, marks=pytest.mark.nightly),
        ("deberta-v2", {}),
        ("deberta", {}),
        ("bert", {"method": "ia3"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_first_token_s_head_fits_transformers_own_classes(
    tmp_path: Path, family: str, lora: dict[str, Any]
) -> None:
    base = tiny(tmp_path / "base", family)
    adapter = exported(
        tmp_path / "adapter", base, KINDS["labels"], model={"pooling": "cls"}, lora=lora
    )
    done = written(adapter, "merged", tmp_path)
    assert done.rows[1].difference is not None
    assert done.rows[1].difference < 1e-5


def test_a_pooler_s_head_fits_bert(tmp_path: Path, bert: Path) -> None:
    adapter = exported(tmp_path / "adapter", bert, KINDS["labels"], model={"pooling": "pooler"})
    assert written(adapter, "merged", tmp_path).rows[1].difference < 1e-5  # type: ignore[operator]


def test_a_decoder_s_head_fits_where_it_has_no_bias(tmp_path: Path, llama: Path) -> None:
    free = exported(tmp_path / "free", llama, KINDS["labels"])
    with pytest.raises(UsageError, match=r"no bias in its head.*these fit: sentence-transformers"):
        written(free, "merged", tmp_path)
    frozen = exported(tmp_path / "frozen", llama, KINDS["labels"], lora={"freeze": ("head.bias",)})
    assert written(frozen, "merged", tmp_path).rows[1].difference < 1e-5  # type: ignore[operator]


def test_what_cannot_hold_a_head_is_refused_with_what_can(
    tmp_path: Path, bert: Path, adapters: dict[str, Path]
) -> None:
    mean = exported(tmp_path / "mean", bert, KINDS["labels"], model={"pooling": "mean"})
    with pytest.raises(
        UsageError, match=r"reads the first token, and the study the mean.*these fit: sentence"
    ):
        written(mean, "merged", tmp_path)
    with pytest.raises(UsageError, match="gives no vector for a text; these fit: merged, onnx"):
        written(adapters["tags"], "sentence-transformers", tmp_path)
    with pytest.raises(UsageError, match="pairs; these fit: merged, onnx"):
        written(adapters["pairs"], "sentence-transformers", tmp_path)
    with pytest.raises(UsageError, match=r"an adapter of llama\.cpp cannot hold"):
        written(adapters["labels"], "gguf", tmp_path)
    prompted = exported(
        tmp_path / "prompt", bert, KINDS["labels"], lora={"method": "prompt", "tokens": 2}
    )
    with pytest.raises(UsageError, match=r"vectors before each text.*these fit: onnx"):
        written(prompted, "merged", tmp_path)
    assert not any((tmp_path / form).exists() for form in FORMS)


@pytest.mark.parametrize("lora", [{"method": "prompt", "tokens": 2}, {"method": "bitfit"}])
def test_what_cannot_be_merged_is_in_the_onnx_file(
    tmp_path: Path, bert: Path, lora: dict[str, Any]
) -> None:
    adapter = exported(tmp_path / "adapter", bert, KINDS["labels"], lora=lora)
    assert written(adapter, "onnx", tmp_path).rows[1].difference < CLOSE  # type: ignore[operator]


def test_a_short_float_s_base_is_exported_in_float32(tmp_path: Path, llama: Path) -> None:
    adapter = exported(tmp_path / "adapter", llama, KINDS["chat"], model={"dtype": "bfloat16"})
    assert written(adapter, "merged", tmp_path).rows[1].difference < 1e-5  # type: ignore[operator]
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == "float32"


@pytest.mark.parametrize(
    "family", ["falcon with ALiBi", pytest.param("mamba", marks=pytest.mark.nightly)]
)
def test_a_trace_that_does_not_run_at_every_size_is_refused(tmp_path: Path, family: str) -> None:
    """One that onnxruntime does not load, and one that has the traced length in it."""
    adapter = exported(tmp_path / "adapter", tiny(tmp_path / "base", family), KINDS["chat"])
    with pytest.raises(UsageError, match=r"onnxruntime cannot run the trace|other logits"):
        written(adapter, "onnx", tmp_path)
    assert not (tmp_path / "onnx").exists()


# Architectures that have no class for tags in transformers, or one with more in its head.
UNTAGGED = ("modernbert", "opt", "gemma3-text", "mamba", "qwen2")


@pytest.mark.nightly
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_each_architecture_is_exported(tmp_path: Path, family: str) -> None:
    base = tiny(tmp_path / "base", family)
    if family not in UNTAGGED:
        adapter = exported(tmp_path / "tags", base, KINDS["tags"])
        export_model(adapter, "merged", tmp_path / "tagger")
    if family not in ("mamba", "falcon with ALiBi"):
        adapter = exported(tmp_path / "labels", base, KINDS["labels"])
        export_model(adapter, "onnx", tmp_path / "classifier")
    if family in DECODERS:
        adapter = exported(tmp_path / "chat", base, KINDS["chat"])
        export_model(adapter, "merged", tmp_path / "merged")


def test_a_chat_s_adapter_is_written_for_llama_cpp(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    done = written(adapters["chat"], "gguf", tmp_path)
    assert (tmp_path / "gguf" / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    assert done.rows[1].milliseconds is None


def test_a_form_that_computes_otherwise_is_not_written(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.forms.classifier_head.SLOPE", 0.5)  # tanh is no line there
    with pytest.raises(UsageError, match="other logits than the study's network"):
        written(adapters["labels"], "merged", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_bad_places_are_named(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--format tflite: unknown format; choose from merged"):
        export_model(adapters["tags"], "tflite", tmp_path / "out")
    with pytest.raises(UsageError, match="not overwritten"):
        export_model(adapters["tags"], "merged", tmp_path)
    with pytest.raises(BadFileError, match="no adapter here"):
        export_model(tmp_path, "merged", tmp_path / "out")
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(BadFileError, match="did not finish"):
        export_model(tmp_path, "merged", tmp_path / "out")


def test_a_missing_package_is_named_before_anything_is_written(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r'pip install "cloister\[export\]"'):
        written(adapters["tags"], "onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []
