"""How large inputs are, and whether they can be predicted for, before they wait in a queue."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.records import RecordKind
from cloister.serving.inputs import Input, as_chat, as_items, as_pair, as_plain_text, as_sentence


def size_of(kind: RecordKind, inputs: Sequence[Input], max_length: int) -> int:
    """Checks inputs, and counts their tokens: at most a token a character, and `max_length` each.

    An estimate from above is enough: it bounds what is gathered for a pass, and the model cuts its
    passes by the tokens that there are. Tokenizing here too would hold up every other caller.

    Args:
        kind: What the task reads.
        inputs: What is predicted for.
        max_length: Most tokens that are read of one.

    Raises:
        DataError: One is empty or of another kind than the task reads.
    """
    total = 0
    for number, one in enumerate(inputs, 1):
        if kind == "tokens":
            characters = len(as_sentence(one, number).text)
        elif kind == "messages":
            characters = sum(len(turn.content) for turn in as_chat(one, number).messages)
        elif kind == "pairs":
            characters = sum(map(len, as_pair(one, number)))
        elif kind == "items":  # how long their texts are, ids do not say
            as_items(one, number)
            characters = max_length
        else:
            characters = len(as_plain_text(one, number))
        total += min(characters + 3, max_length)  # and the tokens around and between texts
    return total
