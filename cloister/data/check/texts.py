"""Counts lengths of texts, and finds texts that are empty, very long, or damaged."""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from statistics import median_low
from typing import Any

from cloister.data.check.findings import FileFinding
from cloister.data.clean.markup import TAG

# A long text with ten times the median length is often a whole document in one row.
LONG_RATIO, LONG = 10, 2000
# The replacement character of decoders, and UTF-8 that was decoded as Latin-1 or as GBK.
_LOST = re.compile("\ufffd|锟斤拷|ï»¿|Ã[\x80-\xbf]|â€")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_WIDE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u3000]")


class TextLengths:
    """Lengths of texts in characters, and what looks wrong in them."""

    def __init__(self) -> None:
        self.lengths = array("L")
        self._rows = array("L")
        self.empty = FileFinding("empty-text", "texts are empty; they are left out of training")
        self._signs = (
            (
                _LOST,
                FileFinding("lost-characters", "texts were damaged earlier by a wrong encoding"),
            ),
            (TAG, FileFinding("html", "texts hold HTML tags; data clean removes them")),
            (
                _CONTROL,
                FileFinding("control-characters", "texts hold invisible control characters"),
            ),
            (_WIDE, FileFinding("full-width", "texts hold full-width letters, digits or blanks")),
        )
        self._entities = FileFinding("html-entities", "texts hold HTML entities such as &amp;")
        self._forms = FileFinding("not-nfc", "texts are not in Unicode's composed form (NFC)")

    def add(self, text: str, row: int) -> None:
        """Counts one text and its signs of damage."""
        self.lengths.append(len(text))
        self._rows.append(row)
        if not text.strip():
            self.empty.add(row)
            return
        for pattern, finding in self._signs:
            if pattern.search(text):
                finding.add(row)
        if "&" in text and html.unescape(text) != text:
            self._entities.add(row)
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            self._forms.add(row)

    @property
    def median(self) -> int:
        """Returns the median length in characters; 0 if there is no text."""
        return median_low(self.lengths) if self.lengths else 0

    def findings(self) -> list[FileFinding]:
        """Returns what looks wrong with the texts."""
        least = max(LONG, LONG_RATIO * self.median)
        long = FileFinding(
            "long-text", f"texts have {least:,} characters and more, ten times the median"
        )
        for length, row in zip(self.lengths, self._rows, strict=True):
            if length >= least:
                long.add(row)
        every = [self.empty, long, *(f for _, f in self._signs), self._entities, self._forms]
        return [finding for finding in every if finding.count]

    def histogram(self) -> list[tuple[str, int]]:
        """Returns the number of texts by length, in powers of two."""
        counts: dict[int, int] = {}
        for length in self.lengths:
            counts[length.bit_length()] = counts.get(length.bit_length(), 0) + 1
        return [
            (f"{1 << bits - 1:,}–{(1 << bits) - 1:,}" if bits else "0", counts.get(bits, 0))
            for bits in range(min(counts, default=0), max(counts, default=-1) + 1)
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the lengths' summary as JSON values."""
        ordered = sorted(self.lengths)
        return {
            "count": len(ordered),
            "shortest": ordered[0] if ordered else None,
            "median": self.median if ordered else None,
            "longest": ordered[-1] if ordered else None,
            "histogram": [{"characters": name, "count": count} for name, count in self.histogram()],
        }
