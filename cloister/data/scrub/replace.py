"""Replaces identifiers by typed placeholders; within a unit, equal identifiers get the same one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cloister.data.scrub.spans import TYPES, Span
from cloister.data.values import Value

Find = Callable[[str], Sequence[Span]]
# A placeholder of an earlier scrubbing: it gets a new number with the rest, so that no new
# identifier gets a placeholder that already stands for another one.
_PLACEHOLDER = re.compile(rf"\[({'|'.join(TYPES)})_([0-9]{{1,9}})\]")
# Keys of an object whose texts are part of a format, such as roles, and never personal.
_FORMAT_KEYS = ("role", "type")


@dataclass
class Placeholders:
    """Numbers the identifiers of one unit, in the order in which they were first seen.

    Attributes:
        seen: Number of different identifiers seen, by type.
        numbers: The number of each identifier, by type and value.
    """

    seen: Counter[str] = field(default_factory=Counter)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def placeholder(self, kind: str, value: str) -> str:
        """Returns an identifier's placeholder: `[PHONE_1]` for the unit's first phone number."""
        number = self.numbers.get((kind, value))
        if number is None:
            self.seen[kind] += 1
            number = self.numbers[kind, value] = self.seen[kind]
        return f"[{kind}_{number}]"


@dataclass
class Scrubber:
    """Replaces identifiers in the values of rows, and counts them.

    Attributes:
        find: Finds the identifiers of a text: `find.find`.
        found: Number of replaced identifiers, by type.
    """

    find: Find
    found: Counter[str] = field(default_factory=Counter)

    def value(self, value: Value, unit: Placeholders) -> Value:
        """Returns a value without the identifiers in its texts, lists and objects.

        The words of a list of texts are read as one text, because an identifier may have several
        words; each of them is replaced as a whole, so that the number of words, and each word's
        tag, stays.

        Args:
            value: A row's value.
            unit: The numbers of the row's unit; new identifiers are added.
        """
        if isinstance(value, str):
            return self.text(value, unit)
        if isinstance(value, Mapping):
            return {
                key: inner if key in _FORMAT_KEYS else self.value(inner, unit)
                for key, inner in value.items()
            }
        if isinstance(value, Sequence):
            if value and all(isinstance(word, str) for word in value):
                return self._words([str(word) for word in value], unit)
            return [self.value(inner, unit) for inner in value]
        return value

    def text(self, text: str, unit: Placeholders) -> str:
        """Returns a text without its identifiers."""
        parts, place = [], 0
        for start, end, new in self._replacements(text, unit):
            parts += [text[place:start], new]
            place = end
        return "".join([*parts, text[place:]])

    def _words(self, words: list[str], unit: Placeholders) -> list[Value]:
        changed: list[Value] = list(words)
        replaced = self._replacements(" ".join(words), unit)
        start, next_one = 0, 0
        for place, word in enumerate(words):
            end = start + len(word)
            while next_one < len(replaced) and replaced[next_one][1] <= start:
                next_one += 1
            if next_one < len(replaced) and replaced[next_one][0] < end:
                changed[place] = replaced[next_one][2]
            start = end + 1
        return changed

    def _replacements(self, text: str, unit: Placeholders) -> list[tuple[int, int, str]]:
        """Returns start, end and placeholder of each identifier and of each older placeholder."""
        there = [
            Span(m.start(), m.end(), m[1], f"placeholder {m[2]}")
            for m in _PLACEHOLDER.finditer(text)
        ]
        new = self.find(text)
        if there:  # drop what a rule finds inside of a placeholder
            held = {place for span in there for place in range(span.start, span.end)}
            new = [s for s in new if held.isdisjoint(range(s.start, s.end))]
        self.found.update(span.type for span in new)
        return [
            (span.start, span.end, unit.placeholder(span.type, span.value))
            for span in sorted([*there, *new], key=lambda s: s.start)
        ]
