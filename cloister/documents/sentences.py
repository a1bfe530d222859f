"""Cuts a text into passages that end where sentences do, each with the end of the one before.

A passage is a piece of the text as it stands, so that it can be found there again. It has at most
as many tokens as the encoder reads: what lies beyond would be in no vector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloister.tasks.cut import CHARACTERS_A_TOKEN

# Behind it a sentence ends: a full stop with what closes it and a blank, in Chinese and Japanese
# without one; a line break.
_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？；…]+["'”’」』）】]*|\n+""")
_SOLID = re.compile(r"\S")
# Of a passage's tokens, at most so much is said again of the passage before: a quarter keeps a
# sentence of context and makes the index a third larger.
OVERLAP = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where a piece of a text is.

    Attributes:
        start: Its first character.
        end: The one behind its last.
    """

    start: int
    end: int


def sentences(text: str) -> Iterator[Stretch]:
    """The sentences of a text; together they are the text, blanks and all."""
    start = 0
    for match in _END.finditer(text):
        end = match.end()
        while end < len(text) and text[end].isspace():
            end += 1
        if end > start:
            yield Stretch(start, end)
            start = end
    if start < len(text):
        yield Stretch(start, len(text))


def passages(text: str, most: int, count: Callable[[str], int]) -> Iterator[Stretch]:
    """Cuts a text into passages.

    Args:
        text: Any.
        most: Tokens of a passage, at least 1.
        count: How many tokens a text has.

    Yields:
        Spans without blanks around them, in order. Each character that is no blank is in one or,
        where passages overlap, in two; only a character that is itself longer than `most` makes a
        longer one.
    """
    held: list[tuple[Stretch, int]] = []
    is_new = False
    for sentence in _pieces(text, most, count):
        size = count(text[sentence.start : sentence.end])
        if held and sum(tokens for _, tokens in held) + size > most:
            if is_new:
                yield _bare(text, held[0][0].start, held[-1][0].end)
            held = _tail(held, int(most * OVERLAP), most - size)
            is_new = False
        held.append((sentence, size))
        is_new = True
    if is_new:
        yield _bare(text, held[0][0].start, held[-1][0].end)


def _tail(held: list[tuple[Stretch, int]], overlap: int, room: int) -> list[tuple[Stretch, int]]:
    """The last sentences of a passage that are said again in the next."""
    kept, total = len(held), 0
    while kept and total + held[kept - 1][1] <= min(overlap, room):
        kept -= 1
        total += held[kept][1]
    return held[kept:]


def _pieces(text: str, most: int, count: Callable[[str], int]) -> Iterator[Stretch]:
    """Sentences that are no blank, in pieces where one is longer than a passage."""
    for sentence in sentences(text):
        start, end = sentence.start, sentence.end
        while _SOLID.search(text, start, end):
            stop = _longest(text, start, end, most, count)
            yield Stretch(start, stop)
            start = stop


def _longest(text: str, start: int, end: int, most: int, count: Callable[[str], int]) -> int:
    """Where the longest piece from `start` ends, behind a blank where there is one."""
    end = min(end, start + CHARACTERS_A_TOKEN * most)
    if count(text[start:end]) <= most:
        return end
    few, many = start + 1, end
    while few < many:  # the longest that fits, by halving
        middle = (few + many + 1) // 2
        if count(text[start:middle]) <= most:
            few = middle
        else:
            many = middle - 1
    blank = max(text.rfind(" ", start, few), text.rfind("\n", start, few))
    return blank + 1 if blank > start else few


def _bare(text: str, start: int, end: int) -> Stretch:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Stretch(start, end)
