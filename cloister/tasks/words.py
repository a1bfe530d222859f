"""Joins words into running text and finds each word's first token.

Tokenizers are trained on running text, where most words follow a space: byte-level ones (GPT-2,
Llama 3, ModernBERT, Falcon) and those that mark spaces (SentencePiece: Gemma, T5, XLM-R) know
` fever` and `fever` as different tokens. A list of words given as such loses the spaces in several
of them, so here words are joined by one space each, and found again by where in the text each
token lies.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cloister.errors import UsageError

# Words that every text tokenizer keeps; they show whether its offsets tell words apart.
_PROBE = ("the", "patient", "has", "fever")


def as_text(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Words as one text, and each word's place in it: first character, last character + 1."""
    spans, place = [], 0
    for word in words:
        spans.append((place, place + len(word)))
        place += len(word) + 1
    return " ".join(words), spans


def encode_words(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], max_length: int
) -> tuple[list[int], list[int | None]]:
    """Tokens of words in running text.

    Args:
        tokenizer: A fast one.
        words: The words of a sentence.
        max_length: Most tokens; what is longer is cut at its end.

    Returns:
        Token ids, those of the text; and for each token the word that it is the first of, else
        None. A token that several words share belongs to the earliest word without a token. A word
        that was cut, or for which the tokenizer gives no token, has none.
    """
    text, spans = as_text(words)
    encoded: Mapping[str, Any] = tokenizer(
        text, truncation=True, max_length=max_length, return_offsets_mapping=True, verbose=False
    )
    return encoded["input_ids"], list(_firsts(encoded["offset_mapping"], spans))


def _firsts(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> Iterator[int | None]:
    ends = [end for _, end in spans]
    following = 0  # the first word that has no token yet
    for start, end in offsets:
        word = max(bisect_right(ends, start), following)
        if word < len(spans) and start < end and spans[word][0] < end:
            following = word + 1
            yield word
        else:  # a special token, a space, or a further piece of a word
            yield None


def check_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that does not say where its tokens lie.

    Raises:
        UsageError: Its offsets do not tell words apart, so that no tag would be learnt.
    """
    _, firsts = encode_words(tokenizer, _PROBE, 64)
    found = [word for word in firsts if word is not None]
    if found != list(range(len(_PROBE))):
        raise UsageError(
            "task.kind: token-classification needs a tokenizer that says which characters its "
            f"tokens cover; this base's finds {len(found)} of the {len(_PROBE)} words in "
            f"{' '.join(_PROBE)!r}: choose another base"
        )


def needs_fast(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that does not say where its tokens are.

    Raises:
        UsageError: It is a slow one.
    """
    if not tokenizer.is_fast:
        raise UsageError(
            f"task.kind: {kind} needs a fast tokenizer, which says where in the text its "
            "tokens are; choose a base model that has one"
        )
