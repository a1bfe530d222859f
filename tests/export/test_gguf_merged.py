"""A merged chat model in GGUF computes the same, with llama.cpp's names and row order."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from cloister.errors import UsageError
from cloister.export.forms.finished import open_finished, probe_batches
from cloister.export.forms.writing import export_model
from cloister.export.gguf_tokenizer import gguf_tokenizer, tokenizer_problem
from cloister.models.base import find_base
from cloister.serving.model import load
from cloister.tasks.config import TaskConfig
from tests.support.architectures import EVERY, tiny
from tests.support.gguf_files import byte_tokens, llama_tensors
from tests.support.released import exported

CHAT = TaskConfig(kind="causal-lm", max_length=24)
# The last joins two digits, which are cut apart before where each is by itself.
TOKENS = [*byte_tokens(), "12"]
MERGES = [("h", "e"), ("r", "e"), ("Ġ", "t"), ("Ġt", "he"), ("Ġthe", "re"), ("1", "2")]


def byte_level(pre: Any, *, whole_words: bool = False, more: int = 0) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of a few merges and four special tokens, which cuts texts so."""
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    model = models.BPE(vocab=vocabulary, merges=MERGES, ignore_merges=whole_words)
    backend = Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="[PAD]",
        additional_special_tokens=["<|endoftext|>"],
    )
    tokenizer.add_tokens([f"<think{number}>" for number in range(more)])
    return tokenizer


def named(name: str) -> Any:
    """The cutting that transformers gives a name of llama.cpp's."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


DIGITS = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat's adapter on a Llama of two query heads and one key head."""
    place = tmp_path_factory.mktemp("llama")
    base = tiny(place / "base", "llama", tokenizer=byte_level(DIGITS, more=2))
    return exported(place / "adapter", base, CHAT)


def read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_a_llama_has_the_converter_s_names_and_order_of_rows(llama: Path, tmp_path: Path) -> None:
    export_model(llama, "gguf-merged", tmp_path / "gguf")
    export_model(llama, "merged", tmp_path / "merged")
    fields, tensors = read(tmp_path / "gguf" / "model.gguf")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert isinstance(model, LlamaForCausalLM)
    # The tests' own writer of a Llama, which llama.cpp's converter was the model of.
    expected = llama_tensors(model) | {"output.weight": model.lm_head.weight.detach().numpy()}
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
    assert fields["general.architecture"] == "llama"
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.tokens"][-2:] == ["<think0>", "<think1>"]
    assert fields["tokenizer.ggml.token_type"] == [3] * 4 + [1] * 262 + [4] * 2
    assert fields["tokenizer.ggml.merges"] == [" ".join(pair) for pair in MERGES]
    assert fields["llama.attention.key_length"] == 8
    assert fields["tokenizer.ggml.eos_token_id"] == 3
    assert "assistant" in fields["tokenizer.chat_template"].lower()


def test_the_file_is_a_base_that_gives_the_study_s_logits_and_replies(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = export_model(llama, "gguf-merged", tmp_path / "gguf")
    assert done.rows[1].difference is not None
    assert done.rows[1].difference < 1e-5
    folder = find_base(str(tmp_path / "gguf" / "model.gguf"))
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    finished = open_finished(llama)
    for batch in probe_batches(finished):
        inputs = finished.network.inputs(batch)
        gap = (model(**inputs).logits - finished.logits(inputs)) * inputs["attention_mask"][
            ..., None
        ]
        assert gap.abs().max() < 1e-4
    # An adapter of zeros on it replies as the study's model does.
    values = {"train": "b", "r": 1}
    still = exported(tmp_path / "still", folder, CHAT, lora=values)
    weights = still / "adapter_model.safetensors"
    save_file({n: 0 * t for n, t in load_file(weights).items()}, weights)
    assert load(still).predict(["rash"]) == load(llama).predict(["rash"])


@pytest.mark.parametrize(
    ("family", "pre"),
    [
        pytest.param("qwen2", "qwen2", marks=pytest.mark.nightly),
        ("qwen3", "qwen2"),
        ("mistral", "tekken"),
    ],
)
def test_other_families_are_read_back_alike(tmp_path: Path, family: str, pre: str) -> None:
    values = EVERY[family][1]
    kept = dict(values)
    # Mistral 7B v0.3 has no window; transformers reads every dense Qwen 3's heads as 128 wide.
    values |= {
        "mistral": {"sliding_window": None, "tie_word_embeddings": True},
        "qwen3": {"head_dim": 128},
    }.get(family, {})
    try:
        tokenizer = byte_level(named(pre), whole_words=pre == "tekken")
        base = tiny(tmp_path / "base", family, tokenizer=tokenizer)
    finally:
        values.clear()
        values |= kept
    adapter = exported(tmp_path / "adapter", base, CHAT)
    done = export_model(adapter, "gguf-merged", tmp_path / "gguf")
    assert done.rows[1].difference is not None
    assert done.rows[1].difference < 1e-5
    fields, tensors = read(tmp_path / "gguf" / "model.gguf")
    assert fields["tokenizer.ggml.pre"] == pre
    assert ("output.weight" in tensors) == (family != "mistral")  # whose head is tied


def test_a_cutting_has_its_own_name_and_no_other() -> None:
    for pre, whole, name in (
        (GPT2, False, "gpt-2"),
        (DIGITS, False, "smollm"),
        (named("llama-bpe"), True, "llama-bpe"),
        (named("qwen2"), False, "qwen2"),
        (named("gpt-4o"), False, "gpt-4o"),
    ):
        tokenizer = byte_level(pre, whole_words=whole)
        assert tokenizer_problem(tokenizer) is None
        assert gguf_tokenizer(tokenizer, len(tokenizer)).pre == name
    told = gguf_tokenizer(byte_level(GPT2), 270)
    assert told.tokens[-5:-3] == ("12", "[PAD266]")
    assert told.kinds[-5:] == (1, 5, 5, 5, 5)


@pytest.mark.parametrize(
    ("pre", "whole"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True), False),
        (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), False),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), GPT2]), False),
        (GPT2, True),
    ],
    ids=["blank first", "uncut", "digits together", "whole words"],
)
def test_a_cutting_without_a_name_is_refused(pre: Any, whole: bool) -> None:
    problem = tokenizer_problem(byte_level(pre, whole_words=whole))
    assert problem is not None
    assert "name in llama.cpp is not known here" in problem


def test_what_a_file_cannot_hold_is_refused_by_name(
    tmp_path: Path, llama: Path, bert: Path
) -> None:
    def refused(adapter: Path, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            export_model(adapter, "gguf-merged", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    words = exported(tmp_path / "words", tiny(tmp_path / "b1", "llama"), CHAT)
    refused(words, "not a byte-level BPE")
    refused(exported(tmp_path / "gpt2", tiny(tmp_path / "b2", "gpt2"), CHAT), "a whole gpt2")
    labels = TaskConfig(labels=("x", "y"), max_length=12)
    refused(exported(tmp_path / "head", bert, labels), "it has its own head")
    prefix = {"method": "prefix", "tokens": 2}
    tokenizer = byte_level(DIGITS)
    base = tiny(tmp_path / "b3", "llama", tokenizer=tokenizer)
    refused(exported(tmp_path / "prefix", base, CHAT, lora=prefix), "vectors before each text")
    refused(
        exported(tmp_path / "window", tiny(tmp_path / "b4", "mistral", tokenizer=tokenizer), CHAT),
        "a sliding window",
    )
    config = json.loads((base / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    (base / "config.json").write_text(json.dumps(config))
    refused(exported(tmp_path / "scaled", base, CHAT), r"positions are scaled \(linear\)")


def test_a_file_whose_tokens_differ_is_not_written(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.gguf_tokenizer._pre", lambda tokenizer: "gpt-2")
    with pytest.raises(UsageError, match=r"cuts texts differently from the base's \('12345"):
        export_model(llama, "gguf-merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_transformers_reads_otherwise_is_not_written(tmp_path: Path) -> None:
    base = tiny(tmp_path / "base", "qwen3", tokenizer=byte_level(named("qwen2")))  # 8 wide
    adapter = exported(tmp_path / "adapter", base, CHAT)
    with pytest.raises(UsageError, match="cannot read the file of this qwen3"):
        export_model(adapter, "gguf-merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_computes_otherwise_is_not_written(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.forms.gguf_merged.turned", lambda rows, heads: rows)
    with pytest.raises(UsageError, match="other logits than the study's network"):
        export_model(llama, "gguf-merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
