"""Finds all identifiers of one text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from cloister.data.scrub import date_rules, keyword_rules, number_rules, web_rules
from cloister.data.scrub.spans import TYPES, Rule, Span, fold, merged
from cloister.errors import UsageError

RULES: tuple[Rule, ...] = (
    *number_rules.RULES,
    *web_rules.RULES,
    *keyword_rules.RULES,
    *date_rules.RULES,
)
# Every rule needs a digit, @, : or /, www. or a month's character: skip texts without any of them.
_NEEDED = re.compile(r"[0-9@:/月]|www\.", re.IGNORECASE)
# A further finder beside the rules: returns spans of the text as it is written.
Finder = Callable[[str], Iterable[Span]]


def find(text: str, types: Collection[str] = TYPES, more: Finder | None = None) -> list[Span]:
    """Finds the identifiers of a text.

    Args:
        text: As it is written.
        types: The types that are searched for, of `TYPES`.
        more: A further finder for the same text: names (`scrub.person_names`).

    Returns:
        Spans in order, none overlapping: every character that any rule found is in one.

    Guarantees:
        A text of n characters costs a number of steps proportional to n, whatever it holds.
    """
    folded = fold(text)
    rules = RULES if _NEEDED.search(folded) is not None else ()
    found = [span for rule in rules if rule.type in types for span in rule.spans(folded)]
    if more is not None:
        found += [span for span in more(text) if span.type in types]
    return merged(found)


def chosen_types(names: Collection[str]) -> tuple[str, ...]:
    """Returns the given types in the order of `TYPES`; all types if none is given.

    Raises:
        UsageError: A type is unknown.
    """
    asked = {name.upper().replace("-", "_") for name in names}
    if unknown := sorted(asked - set(TYPES)):
        raise UsageError(f"--type: {unknown[0]!r} given; one of {', '.join(TYPES)} is needed")
    return tuple(t for t in TYPES if not asked or t in asked)
