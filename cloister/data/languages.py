"""Detects a text's language with py3langid's built-in model of 140; nothing is fetched."""

from __future__ import annotations

from functools import cache
from typing import Any

from cloister.errors import UsageError

# Characters of a text that are used: more do not change the result, and cost time.
MOST_CHARACTERS = 1000
# Shortest text that is judged, in letters: a shorter one may be of several languages.
SHORTEST = 4
UNKNOWN = "und"  # undetermined, in ISO 639-2
# Members of the macrolanguage Chinese (ISO 639-3), which share its script: short texts in Chinese
# are judged to be Wu or Cantonese for 2.5% of take-away reviews.
_CHINESE = ("wuu", "yue")


@cache
def _model() -> Any:
    from py3langid import langid

    return langid


def language_of(text: str) -> str:
    """Returns the most likely language of a text, as its ISO 639-1 code (`zh`, `en`).

    Short texts are often judged wrongly. A text with fewer than `SHORTEST` letters is `und`.
    """
    start = text[:MOST_CHARACTERS]
    if sum(map(str.isalpha, start)) < SHORTEST:
        return UNKNOWN
    found: str = _model().classify(start)[0]
    return "zh" if found in _CHINESE else found


def check_languages(names: tuple[str, ...]) -> None:
    """Refuses codes of languages that the model does not know.

    Raises:
        UsageError: A code is unknown.
    """
    if not names:
        return
    _model().classify("text")  # loads the model
    known = set(_model().IDENTIFIER.labels)
    for name in names:
        if name not in known:
            raise UsageError(f"--language {name}: unknown language; give codes such as zh or en")
