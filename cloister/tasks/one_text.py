"""A whole text as token ids, with nothing around it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from cloister.tasks.cut import cut_text, most_characters


def text_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int, pad_id: int
) -> tuple[int, ...]:
    """Token ids of a text, cut at its end; padding's id alone where the tokenizer leaves none.

    Args:
        tokenizer: The base's.
        text: Of a record.
        max_length: Most tokens.
        pad_id: Token id of padding.
    """
    looked_at = cut_text(text, max_length)
    ids: list[int] = tokenizer(looked_at, truncation=True, max_length=max_length)["input_ids"]
    return tuple(ids) or (pad_id,)


def is_text_cut(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> bool:
    """Whether a text is longer than what `text_ids` reads of it."""
    if len(text) > most_characters(max_length):
        return True
    # Without a limit a tokenizer warns of texts beyond the base's positions: they are cut.
    return len(tokenizer(text, verbose=False)["input_ids"]) > max_length
