"""Defines a rule and a span, and merges the spans that several rules find in one text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

# Types of identifiers, the most specific first: if two rules find the same characters, the span has
# the earlier type.
TYPES = (
    "RESIDENT_ID",
    "CARD",
    "IBAN",
    "SSN",
    "MAIL",
    "URL",
    "IP",
    "MRN",
    "ACCOUNT",
    "PHONE",
    "DATE",
    "NAME",
)


@dataclass(frozen=True, slots=True)
class Span:
    """One identifier in a text.

    Attributes:
        start: Index of its first character.
        end: Index after its last character.
        type: One of `TYPES`.
        value: Its value in a standard spelling: spans of one type and value are one identifier.
    """

    start: int
    end: int
    type: str
    value: str


# The last decimal digit of Unicode 16 (segmented digit nine); no digit has a higher code point.
_LAST_DIGIT = 0x1FBF9
# The result of a rule's check of a match: start, end and value; None: the check fails.
Read = Callable[["re.Match[str]"], tuple[int, int, str] | None]


@dataclass(frozen=True)
class Rule:
    """A pattern for candidates, and the check that a candidate must pass.

    Attributes:
        type: The type that it finds, of `TYPES`.
        pattern: Matches at most some hundred characters, or one run of one class of characters
            without backtracking: so a search needs a bounded number of steps per character for
            any text (`tests/data/scrub/test_linear.py` checks each pattern).
        read: Checks a match.
    """

    type: str
    pattern: re.Pattern[str]
    read: Read

    def spans(self, text: str) -> Iterator[Span]:
        """Yields the spans that the rule finds in a folded text.

        After a match that fails its check the search continues one character later, so that no
        candidate hides another one inside of it.
        """
        place = 0
        while (match := self.pattern.search(text, place)) is not None:
            found = self.read(match)
            if found is None:
                place = match.start() + 1
                continue
            start, end, value = found
            yield Span(start, end, self.type, value)
            place = max(end, match.start() + 1)


def group(match: re.Match[str]) -> tuple[int, int, str]:
    """Reads a match's first group unchanged: for rules without a check."""
    return match.start(1), match.end(1), match[1].casefold()


def merged(found: Iterable[Span]) -> list[Span]:
    """Joins spans that overlap, so that each character that any rule found is in one span.

    Returns:
        Spans in order, none overlapping. A joined span has the type and value of its longest part;
        of equally long parts, that of the earliest type in `TYPES`.
    """
    spans: list[Span] = []
    cluster: list[Span] = []
    end = 0
    for span in sorted(found, key=lambda s: (s.start, -s.end)):
        if cluster and span.start >= end:
            spans.append(_joined(cluster, end))
            cluster = []
        cluster.append(span)
        end = max(end, span.end)
    return [*spans, _joined(cluster, end)] if cluster else spans


def _joined(cluster: Sequence[Span], end: int) -> Span:
    best = max(cluster, key=lambda s: (s.end - s.start, -TYPES.index(s.type)))
    return Span(cluster[0].start, end, best.type, best.value)


def fold(text: str) -> str:
    """Replaces digits of every script, full-width letters, dashes and blanks by ASCII.

    Returns:
        A text of the same length, so that places in it are places in the original.
    """
    return text if text.isascii() else text.translate(_table())


@cache
def _table() -> dict[int, str]:
    digits = (c for c in range(_LAST_DIGIT + 1) if unicodedata.category(chr(c)) == "Nd")
    table = {c: str(unicodedata.decimal(chr(c))) for c in digits}
    wide = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@.-+/:()#_='"
    # Full-width forms are U+FF01 to U+FF5E, in the order of ASCII.
    table |= {ord(c) + 0xFEE0: c for c in wide}
    # Hyphens, dashes and the minus sign; blanks of other widths, and the ideographic one.
    table |= dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE63], "-")
    return table | dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " ")
