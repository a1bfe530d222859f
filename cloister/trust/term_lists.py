"""Finds terms in texts: whole words in any case, and Chinese characters in their order."""

from __future__ import annotations

from collections.abc import Sequence

from cloister.data.augment.words import Words

# Separates two texts of one record, so that no term begins in one and ends in the other.
BREAK = ""


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the words of texts in lower case, with `BREAK` after each text."""
    return tuple(word for text in texts for word in (*_split(text), BREAK))


def key_of(term: str) -> tuple[str, ...]:
    """Returns a term's words, for `occurs`; a term without words is searched as it is."""
    return _split(term) or (term,)


def occurs(key: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Returns whether the words of a term occur in these words, one directly after another."""
    return any(words[at : at + len(key)] == key for at in range(len(words) - len(key) + 1))


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.casefold().replace("’", "'") for word in Words.of(text).words)
