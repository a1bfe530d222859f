"""A keyed hash of a privacy unit, by which the unit always gets the same part in a data set's life.

A unit's number is HMAC-SHA-256 of its own name under a secret of the site (Krawczyk, Bellare and
Canetti 1997, RFC 2104). It depends on nothing else: not on the unit's place in the file, nor on any
other record. So adding or removing a unit moves no other unit to another part.
"""

from __future__ import annotations

import hashlib
import hmac

from cloister.canonical import canonical
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)

# Numbers of units are below this; SHA-256 gives 64 bits without a modulo.
NUMBERS = 2**64


def unit_digest(record: Record, *, by_person: bool) -> bytes:
    """Returns the SHA-256 of the name of a record's unit, 32 bytes.

    Args:
        record: A record.
        by_person: Whether all records of a person are one unit, where the record names a person.

    Returns:
        The hash of the person; otherwise of the value that a record shares with its copies
        (`cloister.data.unit_column`); otherwise of what a model reads of the record. Labels do not
        count: a corrected label leaves the record in its part.
    """
    if by_person and record.person is not None:
        name: list[object] = ["person", record.person]
    elif record.unit is not None:
        name = ["unit", record.unit]
    else:
        name = ["content", *_content(record)]
    try:
        return hashlib.sha256(canonical(name)).digest()
    except UnicodeEncodeError:  # a lone surrogate, as in damaged files
        return hashlib.sha256(repr(name).encode("utf-8", "surrogatepass")).digest()


def unit_number(key: bytes, purpose: str, digest: bytes) -> int:
    """Returns a unit's number under a key, from 0 to `NUMBERS` - 1.

    Args:
        key: A secret of at least 32 bytes.
        purpose: What the number decides; different purposes give independent numbers.
        digest: The unit's, from `unit_digest`.

    Guarantees:
        Constant time and memory for any record. Without the key the numbers cannot be told from
        uniform ones, if SHA-256 is as HMAC needs it.
    """
    found = hmac.digest(key, purpose.encode() + b"\x1f" + digest, "sha256")
    return int.from_bytes(found[:8], "big")


def _content(record: Record) -> list[object]:
    """Returns what a model reads of a record, its kind first."""
    if isinstance(record, PairRecord):
        return ["pair", record.text, record.text_b]
    if isinstance(record, TextRecord | LabelsRecord | ScoreRecord):
        return ["text", record.text]
    if isinstance(record, TokenRecord):
        return ["tokens", *record.tokens]
    if isinstance(record, ItemsRecord):
        return ["items", *record.items]
    assert isinstance(record, ChatRecord)
    return ["turns", record.text, _turns(record.messages), _turns(record.rejected or ())]


def _turns(messages: tuple[Message, ...]) -> list[list[str]]:
    return [[one.role, one.content] for one in messages]
