"""Checks inputs and estimates their tokens before they enter the queue."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.records import RecordKind
from cloister.serving.inputs import Input, as_chat, as_items, as_pair, as_plain_text, as_sentence


def size_of(kind: RecordKind, inputs: Sequence[Input], max_length: int) -> int:
    """Checks inputs and returns an upper bound of their tokens.

    The bound assumes one token per character, and at most `max_length` for each input. It only
    limits the size of a batch; the model splits a batch by the true number of tokens. Counting
    them here would delay all other callers.

    Args:
        kind: The kind of input that the task reads.
        inputs: The inputs to predict for.
        max_length: Most tokens that the model reads of one input.

    Raises:
        DataError: An input is empty, or not of the kind that the task reads.
    """
    total = 0
    for number, one in enumerate(inputs, 1):
        if kind == "tokens":
            characters = len(as_sentence(one, number).text)
        elif kind == "messages":
            characters = sum(len(turn.content) for turn in as_chat(one, number).messages)
        elif kind == "pairs":
            characters = sum(map(len, as_pair(one, number)))
        elif kind == "items":  # ids do not tell how long the items' texts are
            as_items(one, number)
            characters = max_length
        else:
            characters = len(as_plain_text(one, number))
        total += min(characters + 3, max_length)  # 3: special tokens around and between texts
    return total
