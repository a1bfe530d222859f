"""A fixed number of texts out of a stream of any length, each with the same chance."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from cloister.data.languages import language_of

# Texts whose language is judged: a share is then known to 0.7 percentage points (one s.d.).
MOST = 5000
# Characters of a text that are kept.
KEPT = 1000


class LanguageSample:
    """Languages of a random sample (reservoir sampling; Vitter 1985), the same in every run."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._texts: list[str] = []
        self._seen = 0

    def add(self, text: str) -> None:
        """Takes a text into the sample, or not."""
        self._seen += 1
        if len(self._texts) < MOST:
            self._texts.append(text[:KEPT])
        elif (place := self._random.randrange(self._seen)) < MOST:
            self._texts[place] = text[:KEPT]

    def to_json(self) -> dict[str, Any]:
        """Returns how many texts of the sample are in which language, as JSON values."""
        counts = Counter(map(language_of, self._texts))
        return {"sampled": len(self._texts), "counts": dict(counts.most_common())}
