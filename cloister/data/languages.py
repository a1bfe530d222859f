"""The language of a text, by py3langid's built-in model of 140 languages; nothing is fetched."""

from __future__ import annotations

from functools import cache
from typing import Any

from cloister.errors import UsageError

# Characters that are looked at: more change nothing, and cost time.
MOST_CHARACTERS = 1000
# Letters of the shortest text that is judged; a shorter one has no one language.
SHORTEST = 4
UNKNOWN = "und"  # undetermined, in ISO 639-2
# Members of the macrolanguage Chinese (ISO 639-3), which share its script: short texts in Chinese
# are judged to be Wu or Cantonese in 2.5% of take-away reviews.
_CHINESE = ("wuu", "yue")


@cache
def _model() -> Any:
    from py3langid import langid

    return langid


def language_of(text: str) -> str:
    """The likeliest language of a text, as its ISO 639-1 code (`zh`, `en`).

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
        UsageError: One is none.
    """
    if not names:
        return
    _model().classify("text")  # loads the model
    known = set(_model().IDENTIFIER.labels)
    for name in names:
        if name not in known:
            raise UsageError(
                f"--language {name}: no language that is known; give codes such as zh or en"
            )
