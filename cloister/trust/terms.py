"""Looks for terms in texts: whole words in any case, and Chinese characters in their order."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.augment.words import Words

# Between two texts of one record, so that no term begins in one and ends in the other.
BREAK = ""


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The words of texts in lower case, each text followed by `BREAK`."""
    return tuple(word for text in texts for word in (*_split(text), BREAK))


def key_of(term: str) -> tuple[str, ...]:
    """A term as words, to be found by `occurs`; a term without words is found as it is."""
    return _split(term) or (term,)


def occurs(key: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether the words of a term stand somewhere in these words, one after another."""
    return any(words[at : at + len(key)] == key for at in range(len(words) - len(key) + 1))


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.casefold().replace("’", "'") for word in Words.of(text).words)
