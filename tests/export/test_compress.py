"""A compressed model is smaller, computes what its card states, and loads without Cloister."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from cloister.errors import MisfitError, ModelFileError, UsageError
from cloister.export.adapter_folder import read_released
from cloister.export.compress.attention_heads import drop_heads
from cloister.export.compress.distance import Reference, divergence, reference
from cloister.export.compress.layers import LayerStack, drop_layers
from cloister.export.compress.settings import Compression
from cloister.export.compress.sparsity import prune_weights
from cloister.export.compress.writing import CompressedModel, compress_model
from cloister.export.forms.finished import Finished, open_finished, probe_batches
from cloister.export.forms.writing import export_model
from cloister.registry.lineage import read_candidate
from cloister.serving.model import load
from cloister.serving.predictions import Classified, Ranked, Replied, Retrieved
from cloister.tasks.config import TaskConfig
from tests.support.architectures import DECODERS, ENCODERS, EVERY, tiny
from tests.support.examples import tries
from tests.support.models import WORDS, tiny_bert
from tests.support.released import exported

LENGTH = 12
TEXTS = ["chest pain at rest", "fever", "the patient has a severe rash since monday and a cough"]
LABELS = TaskConfig(labels=("x", "y", "z"), max_length=LENGTH)
CHAT = TaskConfig(kind="causal-lm", max_length=24)
KINDS = {
    "several": TaskConfig(
        kind="multi-label-classification", labels=("x", "y", "z"), max_length=LENGTH
    ),
    "scores": TaskConfig(kind="scoring", score_range=(0.0, 3.0), score_step=1.0, max_length=LENGTH),
    "pairs": TaskConfig(kind="text-pairs", labels=("yes", "no"), max_length=LENGTH),
    "tags": TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=LENGTH),
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """An adapter whose head reads the first token."""
    place = tmp_path_factory.mktemp("labelled") / "adapter"
    return exported(place, bert, LABELS, model={"pooling": "cls"})


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat's adapter on a Llama with four query heads in two groups."""
    place = tmp_path_factory.mktemp("grouped")
    return exported(place / "adapter", grouped_base(place / "base", "llama"), CHAT)


def grouped_base(folder: Path, family: str) -> Path:
    values = EVERY[family][1]
    kept = dict(values)
    values |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    try:
        return tiny(folder, family)
    finally:
        values.clear()
        values |= kept


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty public texts of the tiny tokenizer's words, as texts, pairs and words."""
    file = tmp_path_factory.mktemp("public") / "public.jsonl"
    words = itertools.cycle(WORDS)
    rows = []
    for row in range(60):
        text = " ".join(next(words) for _ in range(2 + row % 7))
        rows.append(json.dumps({"text": text, "text_b": "no fever"}))
    file.write_text("\n".join(rows) + "\n")
    return file


def opened(adapter: Path) -> tuple[Finished, Reference]:
    """A finished model without its adapter's modules, and its own outputs."""
    finished = open_finished(adapter)
    finished.unload()
    examples = [one for batch in probe_batches(finished) for one in batch.examples]
    return finished, reference(finished.network, finished.task, examples)


def facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "compress.json").read_text()))


def test_fewer_layers_load_with_and_without_cloister(labelled: Path, tmp_path: Path) -> None:
    done = compress_model(labelled, tmp_path / "small", drop_layers=1)
    before, after = done.rows
    layer = sum(
        tensor.numel()
        for name, tensor in load_file(Path(open_base(labelled)) / "model.safetensors").items()
        if "layer.0." in name
    )
    assert after.parameters == before.parameters - layer
    assert after.bytes == 4 * after.parameters
    piped: Any = pipeline("text-classification", model=str(done.folder), device="cpu")
    found = piped(TEXTS, top_k=None, truncation=True)
    for shares, own in zip(found, load(done.folder).predict(TEXTS), strict=True):
        assert isinstance(own, Classified)
        named = {share["label"]: share["score"] for share in shares}
        assert named == pytest.approx(own.probabilities, abs=1e-5)
    assert done.form == "merged"
    assert after.distance > 0
    config = json.loads((done.folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 1


def open_base(adapter: Path) -> str:
    return read_released(adapter).model.base


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name != "tags")) for name in KINDS]
)
def test_each_task_is_pruned_and_taught(
    tmp_path: Path, bert: Path, public: Path, name: str
) -> None:
    model = {} if name == "tags" else {"pooling": "cls"}
    adapter = exported(tmp_path / "adapter", bert, KINDS[name], model=model)
    done = compress_model(
        adapter, tmp_path / "out", drop_layers=1, epochs=3, public=public, learning_rate=3e-3
    )
    losses = facts(done.folder)["losses"]
    assert losses[2] < losses[0]
    asked: list[Any] = [(TEXTS[0], TEXTS[1])] if name == "pairs" else TEXTS[:1]
    assert len(load(done.folder).predict(asked)) == 1


def test_a_chat_loses_layers_and_heads_and_learns_again(
    grouped: Path, public: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"drop_layers": 1, "drop_heads": 1, "sparsity": 0.25}
    plain = compress_model(grouped, tmp_path / "plain", **asked, public=public)
    done = compress_model(
        grouped, tmp_path / "out", **asked, epochs=4, public=public, learning_rate=3e-3
    )
    assert done.rows[1].distance < plain.rows[1].distance
    model: Any = AutoModelForCausalLM.from_pretrained(done.folder)
    assert model.config.num_attention_heads == 2
    assert model.config.num_key_value_heads == 1
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (12, 16)
    assert model.model.layers[0].self_attn.o_proj.weight.shape == (16, 12)
    # A quarter of each matrix of 16 to 32 columns is whole; what was zero stayed so as it learnt.
    for name, module in model.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert int((module.weight == 0).sum()) == module.weight.numel() // 4, name
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "rash"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    new = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    [own] = load(done.folder).predict(["rash"])
    assert isinstance(own, Replied)
    assert str(tokenizer.decode(new, skip_special_tokens=True)).startswith(own.reply[:15])


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=pytest.mark.nightly)
        for name in (
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3-text",
            "smollm3",
        )
    ],
)
def test_a_family_s_heads_are_dropped(tmp_path: Path, family: str) -> None:
    adapter = exported(tmp_path / "adapter", grouped_base(tmp_path / "base", family), CHAT)
    done = compress_model(adapter, tmp_path / "out", drop_heads=1)
    # Rows of q and k, columns of o: 12, v: 6, of 16 numbers each, and Qwen 2's biases, two layers.
    gone = done.rows[0].parameters - done.rows[1].parameters
    assert gone == 2 * (16 * (12 + 6 + 6 + 12) + (24 if family == "qwen2" else 0))


def test_dropping_a_head_computes_what_masking_it_does(grouped: Path) -> None:
    finished, known = opened(grouped)
    inputs = finished.network.inputs(known.kept[0].batch)
    masked, _ = opened(grouped)
    gone = drop_heads(finished.network, 1, known, lambda stage: None)
    layers: Any = masked.network.base.model.layers
    for layer, (group,) in zip(layers, gone, strict=True):
        layer.self_attn.o_proj.weight.data[:, 12 * group : 12 * (group + 1)] = 0.0
    # Sums of 24 or of 12 products: float32's rounding alone.
    assert torch.allclose(finished.logits(inputs), masked.logits(inputs), atol=1e-6)


def test_the_layer_that_does_nothing_is_dropped_first(grouped: Path) -> None:
    for idle in (0, 1):
        finished, _ = opened(grouped)
        layers: Any = finished.network.base.model.layers
        layers[idle].self_attn.o_proj.weight.data.zero_()  # adds nothing to the stream
        layers[idle].mlp.down_proj.weight.data.zero_()
        examples = [one for batch in probe_batches(finished) for one in batch.examples]
        known = reference(finished.network, finished.task, examples)
        assert drop_layers(finished.network, 1, known, lambda stage: None) == (idle,)
        assert known.distance(finished.network) < 1e-6


def test_layers_that_are_put_back_compute_as_before(labelled: Path) -> None:
    finished, known = opened(labelled)
    stack = LayerStack(finished.network.base)
    stack.keep([1])
    assert known.distance(finished.network) > 1e-6
    stack.keep([0, 1])
    assert known.distance(finished.network) == 0.0


@given(sparsity=st.floats(0.0, 0.99))
@settings(max_examples=tries(12), deadline=None)
def test_the_weights_nearest_zero_are_zeroed(labelled: Path, sparsity: float) -> None:
    finished, _ = opened(labelled)
    before = {name: p.clone() for name, p in finished.network.base.named_parameters()}
    masks = prune_weights(finished.network, sparsity)
    after = dict(finished.network.base.named_parameters())
    assert masks
    for name, mask in masks.items():
        gone = mask == 0
        assert int(gone.sum()) == int(sparsity * mask.numel())
        assert bool((after[name][gone] == 0).all())
        assert torch.equal(after[name][~gone], before[name][~gone])
        if gone.any():
            assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - masks.keys())
    assert not any("embedding" in name for name in masks)


@given(data=st.data())
@settings(max_examples=tries(40), deadline=None)
def test_a_divergence_is_zero_of_itself_and_above_of_others(data: st.DataObject) -> None:
    task = data.draw(st.sampled_from([_Kind("sequence-classification"), _Kind("scoring")]))
    numbers = st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6)
    own, other = (torch.tensor(data.draw(numbers)).view(2, 3) for _ in range(2))
    mask, heat = torch.ones(2, 1), data.draw(st.sampled_from([1.0, 2.0]))
    assert float(divergence(task, own, own, mask, heat)) == pytest.approx(0, abs=1e-6)
    gap = float(divergence(task, own, other, mask, heat))
    one, two = own.double() / heat, other.double() / heat
    if task.kind == "scoring":
        p, q = one.sigmoid(), two.sigmoid()
        rows = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=1)
    else:
        p, q = one.softmax(dim=1), two.softmax(dim=1)
        rows = (p * (p / q).log()).sum(dim=1)
    # Float32 of terms of up to 9, thrice a row.
    assert gap == pytest.approx(float(rows.mean()) * heat**2, abs=2e-5, rel=1e-4)


class _Kind:
    """What `divergence` asks of a task."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def test_what_is_at_padding_does_not_count() -> None:
    task: Any = _Kind("token-classification")
    own, other = torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)
    other[0, 2] = torch.tensor([5.0, -5.0])
    assert float(divergence(task, own, other, torch.tensor([[1, 1, 0]]))) == 0.0
    assert float(divergence(task, own, other, torch.tensor([[1, 1, 1]]))) > 1.0


def test_another_base_learns_what_the_trained_model_says(
    labelled: Path, public: Path, tmp_path: Path
) -> None:
    other = tiny_bert(tmp_path / "other", seed=3)
    asked: dict[str, Any] = {"student": str(other), "public": public, "learning_rate": 1e-2}
    short = compress_model(labelled, tmp_path / "short", epochs=1, **asked)
    done = compress_model(labelled, tmp_path / "long", epochs=8, **asked)
    assert done.rows[1].distance < short.rows[1].distance
    found, taught = load(done.folder).predict(TEXTS), load(labelled).predict(TEXTS)
    for one, own in zip(found, taught, strict=True):
        assert isinstance(one, Classified)
        assert isinstance(own, Classified)
        assert one.probabilities == pytest.approx(own.probabilities, abs=0.2)


def test_the_same_seed_teaches_the_same_student(
    labelled: Path, public: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"drop_layers": 1, "epochs": 1, "public": public}
    one, two = (
        load_file(
            compress_model(labelled, tmp_path / name, **asked, seed=5).folder / "model.safetensors"
        )
        for name in ("one", "two")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_card_says_what_was_done_and_why_epsilon_stays(labelled: Path, tmp_path: Path) -> None:
    done = compress_model(labelled, tmp_path / "small", drop_layers=1, sparsity=0.5)
    card, said = (done.folder / "README.md").read_text(), facts(done.folder)
    assert "nothing more is spent (post-processing; Dwork & Roth 2014" in card
    assert f"layers {said['dropped_layers'][0]} (counted from 0) dropped" in card
    assert "a dense runtime is not faster" in card
    assert (done.folder / "card.html").read_text().count("<rect ") == len(done.rows)
    for row in done.rows:
        assert f"| {row.model} | {row.bytes / 1e6:.2f} |" in card
    assert said["models"] == [row.__dict__ for row in done.rows]
    assert said["made_of"]["base"] == open_base(labelled)
    assert done.rows[1].zipped is not None
    assert done.rows[1].zipped < (done.folder / "model.safetensors").stat().st_size


def test_a_recommender_and_a_retriever_keep_their_public_vectors(
    tmp_path: Path, bert: Path
) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item,text\na,fever\nb,cough and rash\nc,chest pain\nd,no headache\n")
    task = TaskConfig(kind="recommendation", items=str(items), max_length=LENGTH)
    adapter = exported(tmp_path / "items", bert, task, model={"pooling": "cls"})
    [ranked] = load(compressed(adapter, tmp_path).folder).predict(["a c"])
    assert isinstance(ranked, Ranked)
    assert {one.item for one in ranked.items} == {"b", "d"}
    passages = tuple(zip("pqr", TEXTS, strict=True))
    task = TaskConfig(kind="retrieval", passages=passages, max_length=LENGTH, labels=tuple("pqr"))
    adapter = exported(tmp_path / "passages", bert, task, model={"pooling": "cls"})
    done = compressed(adapter, tmp_path)
    assert done.form == "base alone"
    [found] = load(done.folder).predict(["chest pain"])
    assert isinstance(found, Retrieved)
    head = [load_file(place / "head.safetensors") for place in (adapter, done.folder / "adapter")]
    assert torch.equal(head[0]["passages"], head[1]["passages"])


def compressed(adapter: Path, place: Path) -> CompressedModel:
    return compress_model(adapter, place / f"{adapter.name} small", drop_layers=1)


def test_a_mean_of_tokens_becomes_a_folder_of_sentence_transformers(
    tmp_path: Path, bert: Path
) -> None:
    adapter = exported(tmp_path / "adapter", bert, LABELS, model={"pooling": "mean"})
    done = compressed(adapter, tmp_path)
    assert done.form == "sentence-transformers"
    own = SentenceTransformer(str(done.folder), device="cpu")
    [scores] = [one["scores"] for one in own.encode(TEXTS[:1], output_value=None)]
    [found] = load(done.folder).predict(TEXTS[:1])
    assert isinstance(found, Classified)
    assert scores.softmax(dim=0).tolist() == pytest.approx(
        list(found.probabilities.values()), abs=1e-5
    )


def test_a_compressed_model_is_exported_compressed_again_and_promoted(
    labelled: Path, tmp_path: Path
) -> None:
    first = compress_model(labelled, tmp_path / "first", sparsity=0.3)
    second = compress_model(first.folder, tmp_path / "second", drop_layers=1)
    assert facts(second.folder)["made_of"] == facts(first.folder)["made_of"]
    done = export_model(second.folder, "onnx", tmp_path / "onnx")
    assert done.rows[1].difference is not None
    assert done.rows[1].difference < 1e-4
    candidate = read_candidate(second.folder)
    made_of = candidate.lineage["compressed_from"]
    assert made_of["adapter_sha256"] == facts(first.folder)["made_of"]["adapter_sha256"]
    shutil.copytree(second.folder / "adapter", tmp_path / "alone")
    with pytest.raises(ModelFileError, match="give that folder as --base"):
        load(tmp_path / "alone")
    found = load(tmp_path / "alone", base=second.folder).predict(TEXTS)
    assert found == load(second.folder).predict(TEXTS)
    (second.folder / "model.safetensors").write_bytes(
        (first.folder / "model.safetensors").read_bytes()
    )
    with pytest.raises(ModelFileError, match="the study needs"):
        load(second.folder)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to compress"),
        ({"drop_layers": -1}, "0 or more"),
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": float("nan")}, "below 1"),
        ({"epochs": 1, "temperature": 0.0}, "above 0"),
        ({"epochs": 1, "learning_rate": float("inf")}, "above 0"),
        ({"student": "x", "drop_layers": 1, "epochs": 1}, "one or the other"),
        ({"student": "x"}, "give epochs"),
        ({"epochs": 10**9}, "at most"),
    ],
)
def test_options_that_contradict_each_other_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Compression(**asked)


def test_what_cannot_be_compressed_is_refused_by_name(
    labelled: Path, grouped: Path, public: Path, tmp_path: Path, bert: Path
) -> None:
    def refused(adapter: Path, said: str, **asked: Any) -> None:
        with pytest.raises(UsageError, match=said):
            compress_model(adapter, tmp_path / "out", **asked)

    refused(labelled, "at most 1 can be dropped", drop_layers=2)
    refused(labelled, "a bert cannot have fewer heads", drop_heads=1)
    refused(grouped, "each layer has 2 groups of heads", drop_heads=2)
    refused(labelled, "without public texts", epochs=1)
    refused(labelled, "became NaN or infinite", epochs=2, public=public, learning_rate=1e30)
    prompt = {"method": "prompt", "tokens": 2}
    prompted = exported(tmp_path / "prompted", bert, LABELS, lora=prompt)
    refused(prompted, "vectors before each text", drop_layers=1)
    shared = exported(tmp_path / "shared", tiny(tmp_path / "albert", "albert"), LABELS)
    refused(shared, "albert are not one list", drop_layers=1)
    both = exported(tmp_path / "both", tiny(tmp_path / "t5", "t5"), LABELS)
    refused(both, "the study used only the encoder of this t5", drop_layers=1)
    chat = {"student": str(tiny(tmp_path / "gpt2", "gpt2", tokenizer=other_words()))}
    refused(grouped, "cuts texts into other tokens", epochs=1, public=public, **chat)
    with pytest.raises(UsageError, match="not overwritten"):
        compress_model(labelled, tmp_path, drop_layers=1)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fever"}\n{"words": "none"}\n')
    with pytest.raises(MisfitError, match="row 2"):
        compress_model(labelled, tmp_path / "out", drop_layers=1, public=bad)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def other_words() -> Any:
    from tests.support.models import word_tokenizer

    tokenizer = word_tokenizer(frame=False)
    tokenizer.add_tokens(["influenza"])
    return tokenizer


def test_a_folder_that_computes_otherwise_is_not_written(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.forms.classifier_head.SLOPE", 0.5)  # tanh is no line there
    with pytest.raises(UsageError, match=r"gives other logits to merged \(a difference of"):
        compress_model(labelled, tmp_path / "out", sparsity=0.5)
    assert list(tmp_path.iterdir()) == []


# What cannot be pruned so: shared layers, and an encoder alone.
REFUSED = ("albert", "t5")


@pytest.mark.nightly
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_each_architecture_loses_a_layer(tmp_path: Path, family: str) -> None:
    base = tiny(tmp_path / "base", family)
    task = CHAT if family in DECODERS else LABELS
    adapter = exported(tmp_path / "adapter", base, task)
    if family in REFUSED or family == "modernbert":  # of two layers, whose first has no norm
        asked = {"drop_layers": 2 if family == "modernbert" else 1}
        with pytest.raises(UsageError, match=r"layer|only the encoder"):
            compress_model(adapter, tmp_path / "out", **asked)
        return
    done = compress_model(adapter, tmp_path / "out", drop_layers=1)
    assert done.rows[1].parameters < done.rows[0].parameters


def test_many_texts_are_compared_on_an_even_part_of_them(
    labelled: Path, grouped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.compress.distance.MOST_COMPARED", 5)
    _, known = opened(labelled)
    places = sorted(place for one in known.kept for place in one.places)
    assert places == [0, 3, 6, 9, 12]  # of 13
    chat, _ = opened(grouped)
    examples = [one for batch in probe_batches(chat) for one in batch.examples]
    width = chat.network.vocabulary
    monkeypatch.setattr(
        "cloister.export.compress.distance.MOST_KEPT", 3 * width * max_tokens(examples)
    )
    kept = reference(chat.network, chat.task, examples)
    assert kept.records == 3  # every sixth
    assert sum(one.logits.numel() for one in kept.kept) <= 3 * width * max_tokens(examples)


def max_tokens(examples: list[Any]) -> int:
    return max(len(one.input_ids) for one in examples)
