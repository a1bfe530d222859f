"""Adds a negation to an English or Chinese text, or removes one.

The rules look at words only and parse no grammar; readers of a report see each edited text. One
edit removes one negation; another adds one after an auxiliary, or before a listed Chinese verb.
"""

from __future__ import annotations

import re

_AUXILIARY = re.compile(
    r"\b(is|are|was|were|am|will|would|can|could|should|must|may|might|has|have|had|does|do|did)\b"
    r"(?!\s+not\b|n['’]t)",
    re.I,
)
_SHORT = re.compile(
    r"\b(is|are|was|were|would|could|should|must|has|have|had|does|do|did)n['’]t\b", re.I
)
# Short forms whose auxiliary has another spelling.
_IRREGULAR = {"can't": "can", "cannot": "can", "won't": "will", "can’t": "can", "won’t": "will"}
_IRREGULAR_WORD = re.compile("|".join(rf"\b{word}\b" for word in _IRREGULAR), re.I)
_WORD = re.compile(r"\b(?:not|never)\s+", re.I)
_NO = re.compile(r"\bno\s+(?=\w)", re.I)
# Chinese words in which the character is not a negation; they are not changed.
_KEPT = (
    "不错|不过|不但|不仅|不管|不论|不同|不断|不久|差不多|特别|区别|分别|别人|无论|无数|未来|没准"
)
_DENIED = re.compile(rf"(?P<kept>{_KEPT})|(?P<has>没有?(?=\w)|未|无|不|别)")
_VERB = re.compile(r"(?<![不没未别])(是|能|会|可以|好|喜欢|推荐|满意|应该|值得|愿意|适合|新鲜)")
_HAS = re.compile(r"(?<![没不未])有")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def without_negation(text: str) -> list[str]:
    """Returns the text without one of its negations: one text for each negation."""
    found = []
    for match in _SHORT.finditer(text):
        found.append(text[: match.start()] + match[1] + text[match.end() :])
    for match in _IRREGULAR_WORD.finditer(text):
        found.append(text[: match.start()] + _IRREGULAR[match[0].lower()] + text[match.end() :])
    for pattern in (_WORD, _NO):
        for match in pattern.finditer(text):
            found.append(text[: match.start()] + text[match.end() :])
    for match in _DENIED.finditer(text):
        if match["has"]:
            kept = "有" if match["has"] == "没有" else ""
            found.append(text[: match.start()] + kept + text[match.end() :])
    return found


def with_negation(text: str) -> list[str]:
    """Returns the text with one more negation: one text for each possible place.

    A text without such a place is negated as a whole.
    """
    found = [text[: m.end()] + " not" + text[m.end() :] for m in _AUXILIARY.finditer(text)]
    found += [text[: m.start()] + "不" + text[m.start() :] for m in _VERB.finditer(text)]
    found += [text[: m.start()] + "没" + text[m.start() :] for m in _HAS.finditer(text)]
    if not found:
        opening = "并非如此：" if _CHINESE.search(text) else "it is not true that "
        found = [opening + text]
    return found
