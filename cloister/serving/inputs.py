"""Turns the inputs of a caller into the records that the study's task encodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.data.cells import whole
from cloister.data.chat_rows import turns_of
from cloister.data.record_schema import words_of
from cloister.data.records import ChatRecord, Message
from cloister.data.sequences import items_of_cell
from cloister.data.values import Number
from cloister.errors import DataError
from cloister.tasks.words import as_text

# A text; two texts; a sentence as a list of words; a person's items as a list of ids; or a
# conversation as a list of turns.
Input = str | Sequence[str] | Sequence[Message] | Sequence[Mapping[str, str]]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Sentence:
    """A sentence, with the position of each word in it.

    Attributes:
        text: The whole sentence.
        words: Its words.
        spans: For each word, the positions of its first character and after its last.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def as_plain_text(given: Input, number: int) -> str:
    """Checks an input that must be a text.

    Args:
        given: The caller's input.
        number: Number of the input, from 1, for messages.

    Raises:
        DataError: The input is not a text, or is empty.
    """
    where = f"input {number}"
    if not isinstance(given, str):
        raise DataError(f"{where}: {type(given).__name__} given; a text is needed")
    if not given.strip():
        raise DataError(f"{where}: empty; a text is needed")
    return whole(given, "text", where)


def as_pair(given: Input, number: int) -> tuple[str, str]:
    """Checks an input that must be two texts.

    Args:
        given: The caller's input.
        number: Number of the input, from 1, for messages.

    Raises:
        DataError: The input is not a list of two texts, or one of them is empty.
    """
    texts = _listed(given)
    if isinstance(given, str) or len(texts) != 2:
        held = type(given).__name__ if isinstance(given, str) else f"{len(texts)} values"
        raise DataError(f"input {number}: {held} given; a pair of texts is needed: (text, text_b)")
    return as_plain_text(texts[0], number), as_plain_text(texts[1], number)


def as_sentence(given: Input, number: int) -> Sentence:
    """Reads a sentence to tag: a list of words, or a text that is split at its spaces.

    Args:
        given: The caller's input.
        number: Number of the input, from 1, for messages.

    Raises:
        DataError: The input is neither of them, or is empty.
    """
    if isinstance(given, str):
        text = as_plain_text(given, number)
        found = list(_WORD.finditer(text))
        return Sentence(text, tuple(m.group() for m in found), tuple(m.span() for m in found))
    words = words_of(_listed(given), "words", f"input {number}")
    text, spans = as_text(words)
    return Sentence(text, words, tuple(spans))


def as_items(given: Input, number: int) -> tuple[str, ...]:
    """Reads a person's items, oldest first: a list of ids, or a text of ids separated by spaces.

    Args:
        given: The caller's input.
        number: Number of the input, from 1, for messages.

    Raises:
        DataError: The input is neither of them, or has no id.
    """
    value: Any = given
    if not isinstance(given, str):
        value = [Number(str(one)) if type(one) is int else one for one in _listed(given)]
    return items_of_cell(value, "items", f"input {number}")


def as_chat(given: Input, number: int) -> ChatRecord:
    """Reads a conversation to which the assistant replies.

    A text counts as one turn of the user. If the last turn is the assistant's, the reply replaces
    it: so a record's own reply can be compared with the model's.

    Args:
        given: The caller's input.
        number: Number of the input, from 1, for messages.

    Raises:
        DataError: The input is not a conversation, or is empty.
    """
    if isinstance(given, str):
        turns: tuple[Message, ...] = (Message("user", as_plain_text(given, number)),)
    else:
        rows = [
            {"role": turn.role, "content": turn.content} if isinstance(turn, Message) else turn
            for turn in _listed(given)
        ]
        turns = turns_of(rows, "messages", f"input {number}")
    if turns[-1].role != "assistant":
        turns = (*turns, Message("assistant", "…"))
    return ChatRecord(turns)


def _listed(given: Input) -> list[Any]:
    return list(given) if isinstance(given, Sequence) else []
