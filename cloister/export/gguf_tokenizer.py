"""A byte-level tokenizer as llama.cpp's GGUF files have it: tokens, merges, and how texts are cut.

A GGUF names the way in which a text is cut before its merges (`tokenizer.ggml.pre`), and llama.cpp
has the code for each name. Here a tokenizer gets a name only if its own cutting is the one that
transformers gives that name; a tokenizer of another kind is refused, because a wrong name would
give the model tokens that it was never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from cloister.models.splitting import named_splittings, takes_whole_words

# What llama.cpp calls kinds of tokens (gguf's TokenType).
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


@dataclass(frozen=True)
class GgufTokenizer:
    """What a GGUF says of its tokenizer.

    Attributes:
        pre: The name of its cutting.
        tokens: By id, spelt in GPT-2's alphabet for bytes; added ones as they are.
        kinds: Of each token.
        merges: In order, two tokens with a blank between them.
    """

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]


def tokenizer_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a tokenizer has no such form; None where it has."""
    if not tokenizer.is_fast:
        return "its tokenizer has no tokenizer.json"
    model = _settings(tokenizer)["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        return (
            "its tokenizer is not a byte-level BPE, of which alone tokenizer.json has all that "
            "llama.cpp reads (SentencePiece's scores are not in it)"
        )
    if _pre(tokenizer) is None:
        return "its tokenizer cuts texts in a way for which llama.cpp's name is not known here"
    return None


def gguf_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int) -> GgufTokenizer:
    """Reads a tokenizer without a `tokenizer_problem`.

    Args:
        tokenizer: The base's.
        rows: Rows of its embedding; ids beyond the tokenizer's are named `[PAD…]`, as llama.cpp's
            converter names them.
    """
    model = _settings(tokenizer)["model"]
    by_id = {number: (token, _NORMAL) for token, number in model["vocab"].items()}
    added: Mapping[int, AddedToken] = tokenizer.added_tokens_decoder
    for number, token in added.items():
        by_id[number] = (token.content, _CONTROL if token.special else _USER_DEFINED)
    whole = [by_id.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(rows)]
    pre = _pre(tokenizer)
    assert pre is not None
    merges = (one if isinstance(one, str) else " ".join(one) for one in model["merges"])
    return GgufTokenizer(
        pre, tuple(text for text, _ in whole), tuple(kind for _, kind in whole), tuple(merges)
    )


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
    """A cutting without what changes no token: offsets, and a sequence of one."""
    if isinstance(cutting, dict):
        if cutting.get("type") == "Sequence" and len(cutting["pretokenizers"]) == 1:
            return _plain(cutting["pretokenizers"][0])
        return {key: _plain(value) for key, value in cutting.items() if key != "trim_offsets"}
    return [_plain(one) for one in cutting] if isinstance(cutting, list) else cutting
