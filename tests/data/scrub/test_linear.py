"""No text costs a rule more than a bounded number of steps per character."""

import re
import sys
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from cloister.data.scrub.find import RULES, find
from cloister.data.scrub.spans import Rule, Span, fold

LONG = 2**16
# Longest text that a match without an open end may take.
WIDEST = 700
# Texts that are made of what a rule begins with, and never ends as it needs.
PIECES = [
    "1", "1 ", "1-", "1.", "4111 ", "a@", "a@a.", "@", "http://", "www.", "+1", "DE89 ", "phone ",
    "mrn no ", "account is ", "::", "1:", "a:", "jan 1 ", "1 jan ", "1/1/", "1年1月", "一", "月",
    "身份证", "(", "１", "é", "\ud7ff",
]  # fmt: skip


def repeats(parsed: Any) -> Iterator[tuple[str, int, Any]]:
    """Every repetition in a parsed pattern: its kind, the most times, and what is repeated."""
    for name, value in parsed:
        for inner in value if isinstance(value, tuple | list) else (value,):
            if isinstance(inner, _parser.SubPattern):
                yield from repeats(inner)
            elif isinstance(inner, list):
                for part in inner:
                    if isinstance(part, _parser.SubPattern):
                        yield from repeats(part)
        if "REPEAT" in str(name):
            yield str(name), value[1], value[2]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.type} {rule.pattern.pattern[:40]}")
def test_a_pattern_without_an_end_never_goes_back(rule: Rule) -> None:
    """A match is bounded, but for possessive runs of one class of characters."""
    parsed = _parser.parse(rule.pattern.pattern, rule.pattern.flags)
    for name, most, inner in repeats(parsed):
        if most >= sys.maxunicode:
            assert name == "POSSESSIVE_REPEAT", rule.pattern.pattern
            assert inner.getwidth() == (1, 1)
    bounded = re.sub(r"\+\+|\*\+", "", rule.pattern.pattern)
    assert _parser.parse(bounded, rule.pattern.flags).getwidth()[1] <= WIDEST


class Counting:
    """A pattern that counts its searches."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.searches = pattern, 0

    def search(self, text: str, place: int) -> re.Match[str] | None:
        self.searches += 1
        return self.pattern.search(text, place)


@pytest.mark.parametrize("piece", PIECES)
def test_each_search_begins_later_than_the_one_before(piece: str) -> None:
    text = fold(piece * (600 // len(piece)))
    for rule in RULES:
        counting = Counting(rule.pattern)
        spans = list(Rule(rule.type, counting, rule.read).spans(text))  # type: ignore[arg-type]
        assert counting.searches <= len(text) + 2
        assert all(isinstance(span, Span) for span in spans)


def test_a_long_text_of_overlapping_spans_is_gone_through() -> None:
    """Each span overlaps the next one, so that all are joined."""
    text = "jan 1 " * (LONG // 6)
    assert [(s.start, s.end) for s in find(text, ("DATE",))] == [(0, len(text) - 1)]
