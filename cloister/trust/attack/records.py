"""Disturbs the input of a record and keeps its label or reply."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from cloister.data.records import ChatRecord, ItemsRecord, PairRecord, Record, TokenRecord
from cloister.trust.attack.disturbances import Disturbing
from cloister.trust.items import ItemsInTexts


def disturbed(record: Record, apply: Disturbing, random: Random) -> Record | None:
    """Returns the record with changed texts; None: nothing changes.

    Args:
        record: A record with a text, two texts, words, items' texts, or turns; of turns only the
            user's are changed.
        apply: The function that changes a text.
        random: The generator.

    Returns:
        The new record. In a sentence the words keep their tags, added words have the tag O, and a
        cut keeps the first words. None if the change joins or splits words of a sentence.
    """
    if isinstance(record, TokenRecord):
        return _words(record, apply(" ".join(record.tokens), random))
    if isinstance(record, ChatRecord):
        turns = list(record.messages)
        for place, turn in enumerate(turns):
            new = apply(turn.content, random) if turn.role == "user" else None
            turns[place] = turn if new is None else replace(turn, content=new)
        changed = tuple(turns)
        return None if changed == record.messages else replace(record, messages=changed)
    if isinstance(record, PairRecord):
        first, second = apply(record.text, random), apply(record.text_b, random)
        if first is None and second is None:
            return None
        return replace(record, text=first or record.text, text_b=second or record.text_b)
    if isinstance(record, ItemsInTexts):
        changes = [apply(text, random) for text in record.texts]
        texts = tuple(n or old for n, old in zip(changes, record.texts, strict=True))
        return None if texts == record.texts else replace(record, texts=texts)
    assert not isinstance(record, ItemsRecord)  # its items have their texts (`in_texts`)
    text = apply(record.text, random)
    return None if text is None else replace(record, text=text)


def _words(record: TokenRecord, new: str | None) -> TokenRecord | None:
    words = tuple((new or "").split())
    own, tags = record.tokens, record.tags
    if not words or words == own:
        return None
    if len(words) == len(own):
        return replace(record, tokens=words)
    if words[: len(own)] == own:
        return replace(record, tokens=words, tags=(*tags, *["O"] * (len(words) - len(own))))
    if own[: len(words)] == words:
        return replace(record, tokens=words, tags=tags[: len(words)])
    return None
