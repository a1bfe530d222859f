"""Converts a Gemma tokenizer to SentencePiece's form in llama.cpp's GGUF files.

A tokenizer.json of Gemma is a BPE with ranked merges; a GGUF has a score for each token instead.
llama.cpp joins the neighbours whose joined token has the highest score. With score = −id this is
the merges' order if two conditions hold, which are checked here for every merge:

- each pair of tokens whose join is a token is a merge, and
- the merges are ordered by the id of the token that they make.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

# Kinds of tokens, numbered as in llama.cpp (gguf's TokenType).
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 3, 4, 5, 6
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
# SentencePiece's mark in place of a blank.
_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
# As transformers builds them for Gemma (models/gemma/tokenization_gemma.py): every blank becomes
# the mark and nothing is cut. Then a split at blanks has no effect, so it may be absent.
_NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


def sentencepiece_problem(settings: Mapping[str, Any]) -> str | None:
    """Returns the reason why a BPE with byte tokens cannot be converted; None: it can.

    Args:
        settings: The content of its tokenizer.json.
    """
    if settings["normalizer"] != _NORMALIZER or settings["pre_tokenizer"] not in (None, _SPLIT):
        return (
            "its tokenizer has byte tokens, and prepares texts in another way than Gemma's; of "
            "tokenizers with byte tokens only Gemma's can be written"
        )
    model = settings["model"]
    ids: Mapping[str, int] = model["vocab"]
    made = [ids[left + right] for left, right in map(_pair, model["merges"])]
    if model.get("ignore_merges") or made != sorted(made):
        return "its tokenizer's merges are not in the order of its tokens, by which llama.cpp joins"
    if {_pair(merge) for merge in model["merges"]} != _joins(ids):
        return "its tokenizer does not join all pairs whose join is a token, as llama.cpp does"
    return None


def sentencepiece_tokens(
    tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any], rows: int
) -> list[tuple[str, int, float]]:
    """Converts a tokenizer that has no `sentencepiece_problem`.

    Args:
        tokenizer: The base's tokenizer.
        settings: The content of its tokenizer.json.
        rows: Number of rows of the base's embedding; unused ids are named `[PAD…]`.

    Returns:
        Text, kind and score of each token, by id.
    """
    by_id: dict[int, tuple[str, int, float]] = {}
    for token, number in settings["model"]["vocab"].items():
        is_byte = _BYTE_TOKEN.fullmatch(token) is not None
        by_id[number] = (token, _BYTE, 0.0) if is_byte else (token, _NORMAL, float(-number))
    for number, added in tokenizer.added_tokens_decoder.items():
        # Blanks are marks before tokens are looked for, so an added token of marks alone is never
        # found whole: it comes of merges, as a normal token does.
        if added.special:
            by_id[number] = (added.content, _CONTROL, float(-number))
        elif set(added.content) != {_BLANK}:
            by_id[number] = (added.content, _USER_DEFINED, float(-number))
    return [by_id.get(number, (f"[PAD{number}]", _UNUSED, 0.0)) for number in range(rows)]


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _joins(ids: Mapping[str, int]) -> set[tuple[str, str]]:
    """Returns all pairs of tokens whose join is a token."""
    return {
        (token[:cut], token[cut:])
        for token in ids
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    }
