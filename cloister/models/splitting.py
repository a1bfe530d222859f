"""Sets how a GGUF's tokenizer splits a text before its merges; the file has only a name for it.

transformers knows some of llama.cpp's names (`tokenizer.ggml.pre`) and uses GPT-2's splitting for
all others, which gives a base tokens that it was never trained on. A name that neither transformers
nor this module knows is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers

from cloister.bounds import shortened
from cloister.errors import ModelFileError
from cloister.models.gguf_header import GgufHeader

# llama.cpp's names (src/llama-vocab.cpp) of GPT-2's splitting, which transformers uses.
_AS_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4"}
# Names of GPT-2's splitting after each digit was split off, as `Digits` does.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
# A word in the vocabulary becomes one token, without use of the merges (llama.cpp's
# `ignore_merges`).
_WHOLE_WORDS = {
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "jina-v5-nano",
    "tekken",
}


def check_splitting(file: Path, header: GgufHeader) -> None:
    """Refuses a byte-level tokenizer with unknown splitting.

    Raises:
        ModelFileError: The name is missing or unknown.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    name = _name(header)
    if name is None or name in {*GGUF_PRE_TOKENIZER_SPLITS, *_AS_GPT2, *_SINGLE_DIGITS}:
        return
    raise ModelFileError(
        f"model.base: {file} splits texts in an unknown way (tokenizer.ggml.pre = "
        f"{shortened(name)}), so its tokens would differ from those of its training; give the "
        "base's own folder of safetensors"
    )


def mend_splitting(tokenizer: Any, header: GgufHeader) -> None:
    """Changes a tokenizer from transformers to the splitting that the file names."""
    name, backend = _name(header), tokenizer.backend_tokenizer
    if name in _SINGLE_DIGITS:
        backend.pre_tokenizer = _single_digits()
    if takes_whole_words(name):
        backend.model.ignore_merges = True


def takes_whole_words(name: str | None) -> bool:
    """Returns whether a word in the vocabulary becomes one token, without use of the merges."""
    return name in _WHOLE_WORDS


def named_splittings() -> Iterator[tuple[str, Any]]:
    """Yields the known names with the splitting that each means, for writing a GGUF.

    If several names mean the same splitting, the one that llama.cpp's converters write comes first.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    yield "gpt-2", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    yield "smollm", _single_digits()
    names = dict.fromkeys(("llama-bpe", "qwen2", *GGUF_PRE_TOKENIZER_SPLITS))
    for name in names:
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
        bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        yield name, pre_tokenizers.Sequence([split, bytes_of])


def _single_digits() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _name(header: GgufHeader) -> str | None:
    """Returns the name; None: the tokenizer does not split (SentencePiece)."""
    if header.values.get("tokenizer.ggml.model") != "gpt2":
        return None
    return str(header.values.get("tokenizer.ggml.pre", ""))
