"""What a caller asks a model about, as the records that the study's task encodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.data.cells import whole
from cloister.data.chat_rows import turns_of
from cloister.data.records import ChatRecord, Message
from cloister.data.schema import words_of
from cloister.data.sequences import items_of_cell
from cloister.data.values import Number
from cloister.errors import DataError
from cloister.tasks.words import as_text

# A text; two texts; a sentence as its words; a person's items as their ids; or a conversation as
# its turns.
Input = str | Sequence[str] | Sequence[Message] | Sequence[Mapping[str, str]]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Sentence:
    """A sentence, with the place of each word in it.

    Attributes:
        text: Its characters.
        words: Its words.
        spans: Of each word: its first character, and the one after its last.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def as_plain_text(given: Input, number: int) -> str:
    """A text to classify.

    Args:
        given: What the caller gave.
        number: Its number, from 1, for messages.

    Raises:
        DataError: It is no text, or an empty one.
    """
    where = f"input {number}"
    if not isinstance(given, str):
        raise DataError(f"{where}: {type(given).__name__} given; a text is needed")
    if not given.strip():
        raise DataError(f"{where}: empty; a text is needed")
    return whole(given, "text", where)


def as_pair(given: Input, number: int) -> tuple[str, str]:
    """Two texts to read together.

    Args:
        given: What the caller gave.
        number: Its number, from 1, for messages.

    Raises:
        DataError: It is no sequence of two texts, or one is empty.
    """
    texts = _listed(given)
    if isinstance(given, str) or len(texts) != 2:
        held = type(given).__name__ if isinstance(given, str) else f"{len(texts)} values"
        raise DataError(f"input {number}: {held} given; a pair of texts is needed: (text, text_b)")
    return as_plain_text(texts[0], number), as_plain_text(texts[1], number)


def as_sentence(given: Input, number: int) -> Sentence:
    """A sentence to tag: a list of words, or a text that is cut at its spaces.

    Args:
        given: What the caller gave.
        number: Its number, from 1, for messages.

    Raises:
        DataError: It is neither, or empty.
    """
    if isinstance(given, str):
        text = as_plain_text(given, number)
        found = list(_WORD.finditer(text))
        return Sentence(text, tuple(m.group() for m in found), tuple(m.span() for m in found))
    words = words_of(_listed(given), "words", f"input {number}")
    text, spans = as_text(words)
    return Sentence(text, words, tuple(spans))


def as_items(given: Input, number: int) -> tuple[str, ...]:
    """What a person has, oldest first: a list of ids, or a text of ids with blanks between them.

    Args:
        given: What the caller gave.
        number: Its number, from 1, for messages.

    Raises:
        DataError: It is neither, or holds no id.
    """
    value: Any = given
    if not isinstance(given, str):
        value = [Number(str(one)) if type(one) is int else one for one in _listed(given)]
    return items_of_cell(value, "items", f"input {number}")


def as_chat(given: Input, number: int) -> ChatRecord:
    """A conversation whose next turn is the assistant's.

    A text is one turn of the user. Where the last turn is the assistant's already, its place is
    where the reply goes, as when replies are scored against a record's own.

    Args:
        given: What the caller gave.
        number: Its number, from 1, for messages.

    Raises:
        DataError: It is no conversation, or an empty one.
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
