"""Counts the texts' tokens under a base, and what a maximal length would cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

# Returns the number of tokens of each text, including special tokens.
CountTokens = Callable[[Sequence[str]], Sequence[int]]

# Texts that are tokenized together.
BATCH = 512
# Maximal lengths that are reported if none is given.
USUAL = (64, 128, 256, 512, 1024, 2048)


class Tokens:
    """Counts tokens, a batch of texts at a time.

    Args:
        count: Counts the tokens of texts.
        max_length: The maximal length that is reported; None: those of `USUAL`.
    """

    def __init__(self, count: CountTokens, max_length: int | None) -> None:
        self._count = count
        self._lengths = (max_length,) if max_length is not None else USUAL
        self._waiting: list[str] = []
        self._sizes: Counter[int] = Counter()

    def add(self, text: str) -> None:
        """Adds one text to the next batch."""
        self._waiting.append(text)
        if len(self._waiting) == BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._sizes.update(self._count(self._waiting))
        self._waiting = []

    def to_json(self) -> dict[str, Any]:
        """Returns quantiles and cuts as JSON values: for each maximal length, the number of longer
        texts and the number of tokens that would be cut."""
        self._flush()
        total = self._sizes.total()
        tokens = sum(size * count for size, count in self._sizes.items())
        cuts = []
        for most in self._lengths:
            longer = {size: count for size, count in self._sizes.items() if size > most}
            lost = sum((size - most) * count for size, count in longer.items())
            cuts.append(
                {
                    "max_length": most,
                    "texts_cut": sum(longer.values()),
                    "tokens_cut": lost,
                    "share_of_tokens_cut": lost / tokens if tokens else 0.0,
                }
            )
        return {
            "texts": total,
            "tokens": tokens,
            "median": self._quantile(0.5),
            "p95": self._quantile(0.95),
            "longest": max(self._sizes, default=None),
            "cuts": cuts,
        }

    def _quantile(self, share: float) -> int | None:
        """Returns the smallest length that at least this share of the texts does not exceed."""
        seen, total = 0, self._sizes.total()
        for size in sorted(self._sizes):
            seen += self._sizes[size]
            if seen >= share * total:
                return size
        return None
