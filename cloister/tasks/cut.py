"""Cuts records to public bounds before they are encoded; the bounds follow from `max_length` only.

A tokenizer reads a whole text before it cuts, and the turns of a conversation are found by
rendering the beginning of each, which grows with their square. A row may have 16 MiB, so without
bounds the time that encoding takes would reveal one long record. What lies beyond these bounds is
cut before anything else happens.
"""

from __future__ import annotations

from dataclasses import replace

from cloister.data.records import Message

# Most characters read for each token of `max_length`. An English token has 4 to 5 characters, and a
# word has at least one token; only a text whose words all exceed 31 characters can need more. The
# longest record of 131,072 tokens then has 2²² characters, which is the most that a rendering may
# have.
CHARACTERS_A_TOKEN = 32
# Turns of a conversation that are read: one for every TOKENS_A_TURN tokens (the role's mark alone
# takes three), but at least LEAST_TURNS and at most MOST_TURNS. With the plain template 32 turns of
# the assistant take 0.02 s, 256 turns 1.2 s.
LEAST_TURNS, TOKENS_A_TURN, MOST_TURNS = 32, 16, 256

# Items of a person that are looked at, from the last one back: twice the most that
# `task.last_items` may be.
MOST_ITEMS = 2000


def most_characters(max_length: int) -> int:
    """Returns the largest number of characters that are read of a record.

    Args:
        max_length: Longest record in tokens.
    """
    return CHARACTERS_A_TOKEN * max_length


def most_turns(max_length: int) -> int:
    """Returns the largest number of turns that are read of a conversation.

    Args:
        max_length: Longest record in tokens.
    """
    return min(max(LEAST_TURNS, max_length // TOKENS_A_TURN), MOST_TURNS)


def cut_text(text: str, max_length: int) -> str:
    """Returns the first characters of a text, at most `most_characters`.

    Args:
        text: The text of a record.
        max_length: Longest record in tokens.

    Guarantees:
        If the first `max_length` words, with the space between them, end within the bound, the cut
        changes no token that is kept.
    """
    return text[: most_characters(max_length)]


def last_text(text: str, max_length: int) -> str:
    """Returns the last characters of a text, for `task.truncation_side = "left"`.

    Args:
        text: The text of a record.
        max_length: Longest record in tokens.
    """
    return text[-most_characters(max_length) :]


def cut_words(words: tuple[str, ...], max_length: int) -> tuple[str, ...]:
    """Returns a sentence's first words, up to `most_characters`; a word's space counts too.

    Args:
        words: The words of a record.
        max_length: Longest record in tokens.
    """
    left, kept = most_characters(max_length), 0
    for word in words:
        if left <= 0:
            break
        kept += 1
        if len(word) >= left:
            return (*words[: kept - 1], word[:left])
        left -= len(word) + 1
    return words[:kept]


def cut_turns(messages: tuple[Message, ...], max_length: int) -> tuple[Message, ...]:
    """Returns a conversation's first turns: at most `most_turns` and `most_characters`.

    The turn that reaches the bound is cut there, as its tokens would be, and the rest is left out.

    Args:
        messages: The messages of a record.
        max_length: Longest record in tokens.
    """
    left, kept = most_characters(max_length), []
    for message in messages[: most_turns(max_length)]:
        if len(message.content) >= left:
            kept.append(replace(message, content=message.content[:left]))
            break
        kept.append(message)
        left -= len(message.content)
    return tuple(kept)


def last_turns(messages: tuple[Message, ...], max_length: int) -> tuple[Message, ...]:
    """Returns a conversation's last turns, for `task.truncation_side = "left"`; see `cut_turns`.

    If turns are left out, the rest begins with a user's turn where it has one, so that it does not
    begin with a reply to a turn that is gone.

    Args:
        messages: The messages of a record.
        max_length: Longest record in tokens.
    """
    left, kept = most_characters(max_length), []
    for message in reversed(messages[-most_turns(max_length) :]):
        if len(message.content) >= left:
            kept.append(replace(message, content=message.content[-left:]))
            break
        kept.append(message)
        left -= len(message.content)
    kept.reverse()
    if len(kept) < len(messages):
        asked = [place for place, message in enumerate(kept[:-1]) if message.role == "user"]
        kept = kept[asked[0] :] if asked else kept
    return tuple(kept)
