"""Splits a text into words and the gaps between them; each Chinese or Japanese character is a word.

Methods work on words, so that they are the same for texts and for sentences that come as words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Japanese syllables; Chinese characters with their extensions. Of `guess.SPACELESS`, these are the
# scripts whose characters are complete; in Thai, Lao, Burmese and Khmer marks belong to a letter.
_ALONE = "\u3040-\u30ff\u3400-\u9fff\U00020000-\U00031fff"
_LETTER = rf"(?:(?![{_ALONE}])[^\W_])"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTER}+(?:['’]{_LETTER}+)*")
_IS_ALONE = re.compile(rf"[{_ALONE}]")
_BEGINS, _ENDS = re.compile(_LETTER), re.compile(rf"{_LETTER}\Z")

# Words that reverse a text's meaning, and often its label: no method changes them.
NEGATIONS = frozenset(
    (
        *("no", "not", "nor", "never", "none", "nobody", "nothing", "neither", "without", "cannot"),
        *("hardly", *"不没沒无無非未别別勿莫否"),
    )
)


@dataclass(frozen=True)
class Words:
    """A text, split into words and gaps.

    Attributes:
        words: The words, in their order.
        gaps: The text before each word, and after the last one.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Words:
        """Splits a text; `str` of the result is the same text."""
        found = list(_WORD.finditer(text))
        edges = [0, *(place for match in found for place in match.span()), len(text)]
        gaps = tuple(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
        return cls(tuple(match[0] for match in found), gaps)

    def __str__(self) -> str:
        """Returns the text, with a blank between words that stand together only after a change.

        In the original text a Chinese character separates words that have no gap. If a method
        dropped or moved it, `2008年3月` would otherwise become `20083月`, another number.
        """
        parts: list[str] = []
        last = ""
        for gap, word in zip(self.gaps, self.words, strict=False):
            fused = not gap and _ENDS.search(last) and _BEGINS.match(word)
            parts += [" " if fused else gap, word]
            last = word
        return "".join([*parts, self.gaps[-1]])

    def without(self, dropped: Sequence[int]) -> Words:
        """Returns the text without some words and the blanks before them."""
        words: list[str] = []
        gaps: list[str] = [""]
        for place, word in enumerate(self.words):
            gap = self.gaps[place]
            if place in dropped:
                gaps[-1] += "" if gap.isspace() else gap
                continue
            joined = gaps[-1] + gap
            gaps[-1] = joined.lstrip() if not words else joined
            words.append(word)
            gaps.append("")
        gaps[-1] += self.gaps[-1]
        return Words(tuple(words), tuple(gaps))

    def joined(self, place: int) -> bool:
        """Returns whether only blanks are between a word and the next."""
        gap = self.gaps[place + 1]
        return place + 1 < len(self.words) and (not gap or gap.isspace())


def is_character(word: str) -> bool:
    """Returns whether a word is one character of a script without blanks, as in Chinese."""
    return len(word) == 1 and _IS_ALONE.match(word) is not None


def may_change(words: Sequence[str], place: int) -> bool:
    """Returns whether a word may be changed without reversing the text's meaning.

    A negation, the word after it, and a number may not.
    """
    near = words[max(0, place - 1) : place + 1]
    return not any(map(_is_negation, near)) and not any(map(str.isdigit, words[place]))


def _is_negation(word: str) -> bool:
    small = word.casefold().replace("’", "'")
    return small in NEGATIONS or small.endswith("n't")
