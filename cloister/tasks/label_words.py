"""Returns the tokens of the labels' words, as a language model would write them after a text."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cloister.bounds import shortened
from cloister.errors import UsageError
from cloister.tasks.prompt import Prompt

# The text before a label if there is no prompt.
_NO_PROMPT = "label:"


def label_tokens(
    tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], prompt: Prompt | None
) -> list[list[int]]:
    """Returns the token ids of each label's words, as they would follow the prompt or the text.

    Underscores of a label become spaces, and a space is written before it unless the prompt ends
    with white space: for byte-level tokenizers ` positive` and `positive` are different tokens.

    Args:
        tokenizer: The base's.
        labels: Class names.
        prompt: The text around each record's text.

    Returns:
        At least one id per label, without special tokens.

    Raises:
        UsageError: The tokenizer gives no token for a label.
    """
    opening = _NO_PROMPT if prompt is None else prompt.behind or _NO_PROMPT
    blank = "" if opening[-1].isspace() else " "
    before = _ids(tokenizer, opening)
    found = []
    for label in labels:
        word = blank + label.replace("_", " ").strip()
        ids = _ids(tokenizer, opening + word)
        # A tokenizer that joins the opening's end to the word gives the word's own tokens.
        ids = ids[len(before) :] if ids[: len(before)] == before else _ids(tokenizer, word)
        if not ids:
            raise UsageError(
                f"lora.head: label-words given, and this base's tokenizer leaves no token of the "
                f'label {shortened(label)}; rename it in the records, or set lora.head = "linear"'
            )
        found.append(ids)
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
