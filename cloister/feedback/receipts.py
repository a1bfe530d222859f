"""Receipts, by which a service recognizes its own answers although it does not store them.

A receipt names the version that answered and the private state that the answer used. It carries an
HMAC-SHA256 (RFC 2104) over both, the question and the answer, under the store's secret. A caller
without the secret can neither attribute another answer to the model nor remove the mark of private
state; without that check, feedback could bring private text into the training data.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cloister.canonical import canonical
from cloister.feedback.corrections import Answer, Given

# Private state that an answer may use besides the shared adapter, and its letter in a receipt.
DOCUMENTS, PERSONAL = "documents", "personal adapter"
_LETTERS = {"n": "", "d": DOCUMENTS, "p": PERSONAL}


@dataclass(frozen=True)
class AnswerOrigin:
    """The version that gave an answer, and the private state that the answer used.

    Attributes:
        version: Digest of the model version.
        drew_on: `documents`, `personal adapter`, or empty.
    """

    version: str
    drew_on: str = ""


def receipt(secret: bytes, origin: AnswerOrigin, asked: Given, answer: Answer) -> str:
    """Makes the receipt that the service sends with an answer.

    Args:
        secret: The store's secret.
        origin: The version that answered, and the private state that it used.
        asked: The model's input, in the form that the store keeps.
        answer: The answer, in the form that the store keeps.
    """
    letter = next(letter for letter, of in _LETTERS.items() if of == origin.drew_on)
    head = f"{origin.version}.{letter}"
    proof = hmac.new(secret, canonical([head, asked, answer]), hashlib.sha256).hexdigest()
    return f"{head}.{proof}"


def origin_of(secret: bytes, shown: str, asked: Given, answer: Answer) -> AnswerOrigin | None:
    """Checks a receipt and returns the answer's origin.

    Returns None if the receipt was not made for this question and answer with this secret.
    """
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
