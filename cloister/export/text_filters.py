"""Decides which drawn texts become records: length, and no text twice.

A filter reads the drawn texts alone. It never compares them with private records: which texts are
left out would tell of those.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from cloister.recipe.private_file import plain_text

# Longest text in characters: 8192 tokens of 32 characters, as records are cut.
MOST_CHARACTERS = 262_144
EMPTY, SHORT, LONG, TWICE = "empty", "too short", "too long", "drawn twice"


@dataclass
class TextFilter:
    """The filter of one file.

    Attributes:
        fewest: Fewest characters of a text.
        most: Most characters of a text.
        keeps_duplicates: Whether equal texts are kept.
        dropped: How many texts were left out, by reason.
    """

    fewest: int
    most: int
    keeps_duplicates: bool
    dropped: Counter[str] = field(default_factory=Counter)
    _seen: set[bytes] = field(default_factory=set)

    def keeps(self, text: str, label: str | None) -> bool:
        """Returns whether a text becomes a record, and remembers it.

        Texts are equal if they differ in case, forms of characters or white space only. With
        another label a text is another record.
        """
        reason = self._reason(text, label)
        if reason is not None:
            self.dropped[reason] += 1
        return reason is None

    def _reason(self, text: str, label: str | None) -> str | None:
        if not text.strip():
            return EMPTY
        if len(text) < self.fewest:
            return SHORT
        if len(text) > self.most:
            return LONG
        if self.keeps_duplicates:
            return None
        digest = hashlib.sha256(f"{label}\x1f{plain_text(text).casefold()}".encode()).digest()
        if digest in self._seen:
            return TWICE
        self._seen.add(digest)
        return None
