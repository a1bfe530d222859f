"""A merged Gemma 3 in GGUF: llama.cpp's names, norms and scores of tokens, read back alike."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, GemmaTokenizer

from cloister.errors import UsageError
from cloister.export.forms.writing import export_model
from cloister.export.gguf_tokenizer import gguf_tokenizer, tokenizer_problem
from cloister.tasks.config import TaskConfig
from tests.export.test_gguf_merged import read
from tests.support.architectures import EVERY, tiny
from tests.support.released import exported

CHAT = TaskConfig(kind="causal-lm", max_length=24)
MARKS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
# In the order in which they are made of their parts, as Gemma's ids are; then single characters.
MADE = ["▁▁", "▁t", "he", "▁the", "re", "▁there", "in"]
CHARACTERS = [*"▁etahrisn", "\n", "."]
GEMMA: dict[str, Any] = {
    "num_hidden_layers": 6,  # llama.cpp's pattern: five with a window, one without
    "head_dim": 256,  # of every Gemma 3 but the largest
    "query_pre_attn_scalar": 256,
    "sliding_window": 4,
}


def vocabulary() -> dict[str, int]:
    return {token: n for n, token in enumerate([*MARKS, *BYTES, *MADE, *CHARACTERS])}


def merges(tokens: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair whose join is a token, in the order of that token."""
    cuts = [(one[:n], one[n:]) for one in MADE for n in range(1, len(one))]
    return [(left, right) for left, right in cuts if left in tokens and right in tokens]


def tokenizer(joined: list[tuple[str, str]] | None = None) -> GemmaTokenizer:
    tokens = vocabulary()
    made = GemmaTokenizer(vocab=tokens, merges=merges(tokens) if joined is None else joined)
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    made.add_tokens(["\n\n", "<table>"])
    return made


def gemma(folder: Path, **changes: Any) -> Path:
    """A chat's adapter on a tiny Gemma 3 with random weights, norms included."""
    values = EVERY["gemma3-text"][1]
    kept = dict(values)
    values |= GEMMA | changes
    try:
        base = tiny(folder / "base", "gemma3-text", tokenizer=tokenizer())
    finally:
        values.clear()
        values |= kept
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    rng = np.random.default_rng(0)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):  # else 0 in each: a norm stored otherwise would not show
            weight.data += weight.new_tensor(0.3 * rng.normal(size=weight.shape))
    model.save_pretrained(base)
    return exported(folder / "adapter", base, CHAT)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma(tmp_path_factory.mktemp("gemma"))


def test_names_shapes_and_norms_are_those_of_llama_cpp(adapter: Path, tmp_path: Path) -> None:
    done = export_model(adapter, "gguf-merged", tmp_path / "gguf")
    assert done.rows[1].difference is not None
    assert done.rows[1].difference < 1e-5
    export_model(adapter, "merged", tmp_path / "merged")
    fields, tensors = read(tmp_path / "gguf" / "model.gguf")
    table = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GEMMA3]}
    names = {name.removesuffix(".weight") for name in tensors}
    # Every tensor of the table but the head, which is the embedding.
    assert names == {one.format(bid=layer) for one in table - {"output"} for layer in range(6)}
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    layer = model.model.layers[5]
    for name, tensor, more in (
        ("token_embd", model.model.embed_tokens, 0),
        ("output_norm", model.model.norm, 1),
        ("blk.5.attn_norm", layer.input_layernorm, 1),
        ("blk.5.post_attention_norm", layer.post_attention_layernorm, 1),
        ("blk.5.ffn_norm", layer.pre_feedforward_layernorm, 1),
        ("blk.5.post_ffw_norm", layer.post_feedforward_layernorm, 1),
        ("blk.5.attn_q_norm", layer.self_attn.q_norm, 1),
        ("blk.5.attn_k", layer.self_attn.k_proj, 0),
        ("blk.5.ffn_up", layer.mlp.up_proj, 0),
    ):
        expected = tensor.weight.detach().numpy() + np.float32(more)
        np.testing.assert_array_equal(tensors[f"{name}.weight"], expected)
    assert fields["general.architecture"] == "gemma3"
    assert fields["gemma3.attention.sliding_window"] == 4
    assert fields["gemma3.rope.freq_base"] == 1_000_000.0
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.ggml.add_space_prefix"] is False
    assert "tokenizer.ggml.merges" not in fields


def test_tokens_have_kinds_and_scores_in_the_order_of_merges() -> None:
    own = tokenizer()
    assert tokenizer_problem(own) is None
    told = gguf_tokenizer(own, len(own) + 1)
    by_text = dict(zip(told.tokens, zip(told.kinds, told.scores, strict=True), strict=True))
    assert (told.model, told.pre, told.merges) == ("llama", "default", ())
    assert [by_text[one][0] for one in ("<bos>", "<0x41>", "▁the", "<table>", "\n\n")] == [
        3,
        6,
        1,
        4,
        4,
    ]
    assert by_text[f"[PAD{len(own)}]"][0] == 5
    assert by_text["<0x41>"][1] == 0.0
    scores = [by_text[one][1] for one in [*MADE, *CHARACTERS]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("text", ["there in the rain", "  the there.", "hehe\n\nt", "in  inn"])
def test_joining_by_scores_gives_the_tokens_of_the_merges(text: str) -> None:
    """llama.cpp's algorithm: of all neighbours, join those whose join has the highest score."""
    own = tokenizer()
    told = gguf_tokenizer(own, len(own))
    score = dict(zip(told.tokens, told.scores, strict=True))
    parts = list(text.replace(" ", "▁").replace("\n\n", "\0"))
    parts = ["\n\n" if part == "\0" else part for part in parts]  # found whole before all else
    while True:
        joins = [
            (-score[left + right], place)
            for place, (left, right) in enumerate(pairwise(parts))
            if left + right in score and "\n\n" not in (left, right)
        ]
        if not joins:
            break
        _, place = min(joins)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    assert parts == own.tokenize(text)


def test_tokenizers_that_llama_cpp_would_read_otherwise_are_refused_by_name() -> None:
    joined = merges(vocabulary())
    problem = tokenizer_problem(tokenizer(joined[::-1]))
    assert problem is not None
    assert "not in the order of its tokens" in problem
    problem = tokenizer_problem(tokenizer(joined[:-1]))
    assert problem is not None
    assert "does not join all pairs" in problem
    other = tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    problem = tokenizer_problem(other)
    assert problem is not None
    assert "only Gemma's can be written" in problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query_pre_attn_scalar": 168}, "another query_pre_attn_scalar"),
        ({"layer_types": ["full_attention"] * 6}, "another layer_types"),
        ({"final_logit_softcapping": 30.0}, "another final_logit_softcapping"),
    ],
)
def test_a_gemma_that_llama_cpp_computes_otherwise_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export_model(gemma(tmp_path, **changes), "gguf-merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_norms_that_are_stored_otherwise_are_noticed(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.export.forms.gguf_merged._NORM_OFFSET", 0)
    with pytest.raises(UsageError, match="other logits than the study's network"):
        export_model(adapter, "gguf-merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
