"""Makes synthetic records of the largest size, to measure the most time that a record can take.

Which text takes a tokenizer longest depends on the tokenizer, so there are several kinds: usual
words, words that are all different, letters one by one, and a single endless word.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from string import ascii_lowercase

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    RecordKind,
    Role,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.tasks.cut import MOST_ITEMS, most_characters, most_turns


def largest_records(
    kind: RecordKind, labels: Sequence[str], max_length: int, score: float = 0.0
) -> list[Record]:
    """Makes records with the largest number of characters, words and turns that are read.

    Args:
        kind: Kind of records that the task reads.
        labels: Class names or tags: records get the last one, because a search finds it last, or
            all of them if a text may have several labels. Or items' ids, the longest texts last.
        max_length: Longest record in tokens.
        score: Score of each record, if the task reads scores.
    """
    draw, size = random.Random(0), most_characters(max_length)
    texts = [
        _filled(size, lambda: draw.choice(("the", "patient", "has", "no", "fever", "today"))),
        _filled(size, lambda: "".join(draw.choices(ascii_lowercase, k=draw.randint(2, 12)))),
        _filled(size, lambda: draw.choice(ascii_lowercase)),
        "".join(draw.choices(ascii_lowercase, k=size)),
        "".join(map(chr, draw.choices(range(0x4E00, 0x9FA5), k=size))),  # Chinese: three bytes each
    ]
    if kind == "text":
        return [TextRecord(text, labels[-1]) for text in texts]
    if kind == "labels":
        return [LabelsRecord(text, tuple(labels)) for text in texts]
    if kind == "score":
        return [ScoreRecord(text, score) for text in texts]
    if kind == "items":
        several = tuple(labels) * -(-MOST_ITEMS // len(labels))
        return [ItemsRecord(several), ItemsRecord(several[-MOST_ITEMS:])]
    if kind == "pairs":  # each text is cut by itself
        return [PairRecord(text, labels[-1], text_b=text) for text in texts]
    if kind == "tokens":
        sentences = [tuple(text.split()) for text in texts]
        return [TokenRecord(words, (labels[-1],) * len(words)) for words in sentences]
    most = most_turns(max_length)
    return [
        *(_conversation(text, 2, ("user", "assistant")) for text in texts),
        _conversation(texts[0], most, ("user", "assistant")),
        _conversation(texts[0], most, ("assistant",)),  # each of these is looked for
    ]


def _filled(size: int, word: Callable[[], str]) -> str:
    words, length = [], 0
    while length < size:
        words.append(word())
        length += len(words[-1]) + 1
    return " ".join(words)[:size]


def _conversation(text: str, turns: int, roles: tuple[Role, ...]) -> ChatRecord:
    """Splits a text into `turns` turns with alternating roles."""
    each = len(text) // turns
    pieces = [text[each * n : each * (n + 1)] or "a" for n in range(turns)]
    messages = tuple(Message(roles[n % len(roles)], piece) for n, piece in enumerate(pieces))
    return ChatRecord(messages, rejected=messages)
