"""Samples a fixed number of texts from a stream of any length, each with the same probability."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from cloister.data.languages import language_of

# Texts in the sample: a language's share is then known to 0.7 percentage points (one s.d.).
MOST = 5000
# Characters of a text that are kept.
KEPT = 1000


class LanguageSample:
    """Detects the languages of a random sample (Vitter 1985), the same in every run."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._texts: list[str] = []
        self._seen = 0

    def add(self, text: str) -> None:
        """Offers a text to the sample (reservoir sampling)."""
        self._seen += 1
        if len(self._texts) < MOST:
            self._texts.append(text[:KEPT])
        elif (place := self._random.randrange(self._seen)) < MOST:
            self._texts[place] = text[:KEPT]

    def to_json(self) -> dict[str, Any]:
        """Returns the number of the sample's texts in each language, as JSON values."""
        counts = Counter(map(language_of, self._texts))
        return {"sampled": len(self._texts), "counts": dict(counts.most_common())}
