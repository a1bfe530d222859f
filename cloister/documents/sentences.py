"""Cuts a text into passages at ends of sentences; each repeats the end of the passage before.

A passage is an unchanged piece of the text, so it can be found there again. It has at most as many
tokens as the encoder reads: text beyond that would be in no vector, and no search would find it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloister.tasks.cut import CHARACTERS_A_TOKEN

# The end of a sentence: a full stop with closing quotes or brackets and a space after it (in
# Chinese and Japanese without a space), or a line break.
_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？；…]+["'”’」』）】]*|\n+""")
_SOLID = re.compile(r"\S")
# Largest part of a passage that repeats the passage before: a quarter keeps about a sentence of
# context, and makes the index a third larger.
OVERLAP = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """The place of a piece of text: characters `start` to `end`, without `end`.

    Attributes:
        start: Position of its first character.
        end: Position after its last character.
    """

    start: int
    end: int


def sentences(text: str) -> Iterator[Stretch]:
    """Returns the sentences of a text; joined they are the whole text, spaces included."""
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
        text: Any text.
        most: Most tokens of a passage, at least 1.
        count: Returns the number of a text's tokens.

    Yields:
        Spans in order, without spaces at their ends. Each character that is not a space is in one
        span, or in two where passages overlap. A span has more than `most` tokens only if a single
        character has.
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
    """Returns the last sentences of a passage, which the next passage repeats."""
    kept, total = len(held), 0
    while kept and total + held[kept - 1][1] <= min(overlap, room):
        kept -= 1
        total += held[kept][1]
    return held[kept:]


def _pieces(text: str, most: int, count: Callable[[str], int]) -> Iterator[Stretch]:
    """Yields the sentences that are not blank; a sentence longer than a passage in pieces."""
    for sentence in sentences(text):
        start, end = sentence.start, sentence.end
        while _SOLID.search(text, start, end):
            stop = _longest(text, start, end, most, count)
            yield Stretch(start, stop)
            start = stop


def _longest(text: str, start: int, end: int, most: int, count: Callable[[str], int]) -> int:
    """Returns the end of the longest piece from `start` that fits, after a space if it has one."""
    end = min(end, start + CHARACTERS_A_TOKEN * most)
    if count(text[start:end]) <= most:
        return end
    few, many = start + 1, end
    while few < many:  # binary search for the longest piece that fits
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
