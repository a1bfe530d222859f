"""Receipts: by them a service knows an answer as its own, though it keeps none.

A receipt names the version that answered and what private state it drew on, and is authenticated
with HMAC-SHA256 (RFC 2104) under the store's secret together with question and answer. So nobody
can attribute another answer to the model, or take the mark of private state off.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cloister.canonical import canonical
from cloister.feedback.corrections import Answer, Given

# What an answer may draw on beside the adapter, as letters of a receipt.
DOCUMENTS, PERSONAL = "documents", "personal adapter"
_LETTERS = {"n": "", "d": DOCUMENTS, "p": PERSONAL}


@dataclass(frozen=True)
class AnswerOrigin:
    """Where an answer comes from.

    Attributes:
        version: Digest of the version that gave it.
        drew_on: `documents`, `personal adapter`, or nothing.
    """

    version: str
    drew_on: str = ""


def receipt(secret: bytes, origin: AnswerOrigin, asked: Given, answer: Answer) -> str:
    """The receipt of an answer.

    Args:
        secret: The store's.
        origin: Where the answer comes from.
        asked: What was asked, in the form in which it is kept.
        answer: What was answered, likewise.
    """
    letter = next(letter for letter, of in _LETTERS.items() if of == origin.drew_on)
    head = f"{origin.version}.{letter}"
    proof = hmac.new(secret, canonical([head, asked, answer]), hashlib.sha256).hexdigest()
    return f"{head}.{proof}"


def origin_of(secret: bytes, shown: str, asked: Given, answer: Answer) -> AnswerOrigin | None:
    """Where an answer comes from, by its receipt; None: it is not this question's and answer's."""
    version, _, rest = shown.partition(".")
    letter = rest[:1]
    if letter not in _LETTERS or not letter:
        return None
    origin = AnswerOrigin(version, _LETTERS[letter])
    try:
        known = receipt(secret, origin, asked, answer)
        return origin if hmac.compare_digest(known.encode(), shown.encode()) else None
    except UnicodeEncodeError:
        return None
