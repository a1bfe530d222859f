"""Turns one text into token ids."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from cloister.tasks.cut import cut_text, most_characters


def text_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int, pad_id: int
) -> tuple[int, ...]:
    """Returns the token ids of a text, cut at its end; only `pad_id` if there are none.

    Args:
        tokenizer: The base's tokenizer.
        text: A record's text.
        max_length: Most tokens.
        pad_id: Token id of padding.
    """
    looked_at = cut_text(text, max_length)
    ids: list[int] = tokenizer(looked_at, truncation=True, max_length=max_length)["input_ids"]
    return tuple(ids) or (pad_id,)


def is_text_cut(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> bool:
    """Returns whether a text is longer than `max_length`, so that `text_ids` cuts it."""
    if len(text) > most_characters(max_length):
        return True
    # verbose=False: a tokenizer warns about texts beyond the base's positions; they are cut.
    return len(tokenizer(text, verbose=False)["input_ids"]) > max_length
