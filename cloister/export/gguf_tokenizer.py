"""Converts a tokenizer to the form of llama.cpp's GGUF files: byte-level BPE, or Gemma's.

Gemma's is in `export.gguf_sentencepiece`. Of a byte-level BPE, a GGUF names the rule that cuts a
text into words before the merges (`tokenizer.ggml.pre`), and llama.cpp has the code for each name.
A tokenizer gets a name only if its rule equals the rule that transformers uses for that name. Every
other tokenizer is refused, because under a wrong name the model would read tokens that it was never
trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from cloister.export.gguf_sentencepiece import sentencepiece_problem, sentencepiece_tokens
from cloister.models.splitting import named_splittings, takes_whole_words

# Kinds of tokens, numbered as in llama.cpp (gguf's TokenType).
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


@dataclass(frozen=True)
class GgufTokenizer:
    """The tokenizer's fields in a GGUF file.

    Attributes:
        model: `gpt2`: byte-level BPE; `llama`: SentencePiece.
        pre: Name of the rule that cuts a text before the merges.
        tokens: Tokens by id. Those of byte-level BPE are spelt in GPT-2's alphabet for bytes, added
            tokens as they are.
        kinds: The kind of each token.
        merges: Merges in order, each as two tokens with a blank between them; SentencePiece: none.
        scores: SentencePiece: the score of each token; byte-level BPE: none.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...] = ()


def tokenizer_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns the reason why a tokenizer cannot be converted; None: it can."""
    if not tokenizer.is_fast:
        return "its tokenizer has no tokenizer.json"
    settings = _settings(tokenizer)
    if settings["model"]["type"] != "BPE":
        return (
            "its tokenizer is not a byte-level BPE; for other kinds tokenizer.json lacks values "
            "that llama.cpp needs (SentencePiece's scores)"
        )
    if settings["model"].get("byte_fallback"):
        return sentencepiece_problem(settings)
    if _pre(tokenizer) is None:
        return "its tokenizer cuts texts by a rule whose name in llama.cpp is not known here"
    return None


def gguf_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int) -> GgufTokenizer:
    """Converts a tokenizer that has no `tokenizer_problem`.

    Args:
        tokenizer: The base's tokenizer.
        rows: Number of rows of the base's embedding. Ids beyond the tokenizer's are named
            `[PAD…]`, as llama.cpp's converter names them.
    """
    settings = _settings(tokenizer)
    model = settings["model"]
    if model.get("byte_fallback"):
        texts, kinds, scores = zip(*sentencepiece_tokens(tokenizer, settings, rows), strict=True)
        return GgufTokenizer("llama", "default", texts, kinds, (), scores)
    by_id = {number: (token, _NORMAL) for token, number in model["vocab"].items()}
    added: Mapping[int, AddedToken] = tokenizer.added_tokens_decoder
    for number, token in added.items():
        by_id[number] = (token.content, _CONTROL if token.special else _USER_DEFINED)
    whole = [by_id.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(rows)]
    pre = _pre(tokenizer)
    assert pre is not None
    merges = (one if isinstance(one, str) else " ".join(one) for one in model["merges"])
    texts, kinds = zip(*whole, strict=True)
    return GgufTokenizer("gpt2", pre, texts, kinds, tuple(merges))


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend: Any = tokenizer
    return dict(json.loads(backend.backend_tokenizer.to_str()))


def _pre(tokenizer: PreTrainedTokenizerBase) -> str | None:
    settings = _settings(tokenizer)
    cutting = _plain(settings["pre_tokenizer"])
    whole_words = bool(settings["model"].get("ignore_merges"))
    for name, pre_tokenizer in named_splittings():
        known = _plain(json.loads(pre_tokenizer.__getstate__()))
        if known == cutting and takes_whole_words(name) == whole_words:
            return name
    return None


def _plain(cutting: Any) -> Any:
    """Simplifies a rule: removes offset options (they change no token), unwraps lists of one."""
    if isinstance(cutting, dict):
        if cutting.get("type") == "Sequence" and len(cutting["pretokenizers"]) == 1:
            return _plain(cutting["pretokenizers"][0])
        return {key: _plain(value) for key, value in cutting.items() if key != "trim_offsets"}
    return [_plain(one) for one in cutting] if isinstance(cutting, list) else cutting
