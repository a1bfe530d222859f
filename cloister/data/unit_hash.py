"""A keyed hash of each privacy unit: what decides a unit's part, and nothing else decides.

    mark = first 64 bits of HMAC-SHA256(key, purpose ‖ 0 ‖ SHA-256(kind ‖ 0 ‖ name))

The name is a person's identifier, or a record's content as canonical JSON (RFC 2104; the key is in
`ledger.unit_key`). It has no position, no count and nothing of other units: if a unit is added or
removed, no other unit's mark changes. Marks for different purposes are independent, so the unit's
group in one study tells nothing about whether it is held out. The inner hash needs no key, so it
can be computed when a file is read; the outer one takes the same time for every unit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import fields, replace

from cloister.data.records import ChatRecord, Message, Record

# Marks are below this.
MARKS = 2**64
# Fields that are not content: who has the record, whom it is about, and of which it is a copy.
NOT_CONTENT = frozenset({"site", "person", "unit"})
# Fields that a model learns to predict; what it reads is all other content.
LEARNT = frozenset({"label", "labels", "tags", "score"})


def mark_of(digest: bytes, key: bytes, purpose: str) -> int:
    """Returns a unit's mark for a purpose, from 0 to `MARKS` - 1.

    Args:
        digest: The unit's.
        key: The data set's secret.
        purpose: What the marks are for, such as `group`.
    """
    if not purpose.isascii() or "\0" in purpose:
        raise ValueError(f"purpose {purpose!r}: ASCII without a zero is needed")
    message = purpose.encode("ascii") + b"\0" + digest
    return int.from_bytes(hmac.digest(key, message, "sha256")[:8], "big")


def person_digest(person: str) -> bytes:
    """Returns the digest of a person."""
    return _digest("person", json.dumps(person))


def content_digest(record: Record) -> bytes:
    """Returns the digest of a record's whole content."""
    return _digest("content", content_of(record))


def side_digests(records: Sequence[Record]) -> tuple[bytes, ...]:
    """Returns the digests by which records are held out of training or not.

    Args:
        records: A site's records, in their order.

    Returns:
        For each, the digest of its person, if it names one, also where records are the privacy
        units: otherwise a score would be of persons whom the adapter knows. Otherwise that of what
        a model reads of it; for copies of a record (`data.unit_column`), of the unit's first row,
        which is their source in the files of `cloister data augment`. So neither a corrected label
        or reply nor copies that are made later move a record.

    Guarantees:
        A digest is a function of the rows of the record's own unit alone.
    """
    sources: dict[str, bytes] = {}
    found = []
    for record in records:
        if record.person is not None:
            found.append(person_digest(record.person))
        elif record.unit is None:
            found.append(_read_digest(record))
        else:
            if record.unit not in sources:
                sources[record.unit] = _read_digest(record)
            found.append(sources[record.unit])
    return tuple(found)


def _read_digest(record: Record) -> bytes:
    """Returns the digest of what a model reads of a record; a chat's replies are learnt."""
    if isinstance(record, ChatRecord):
        asked = tuple(turn for turn in record.messages if turn.role != "assistant")
        record = replace(record, messages=asked, rejected=None)
    return _digest("read", content_of(record, LEARNT))


def content_of(record: Record, without: frozenset[str] = frozenset()) -> str:
    """Returns a record's content as canonical JSON in ASCII, the same in every version.

    Absent fields are left out, so that a field which a later version adds changes no older record.

    Args:
        record: The record.
        without: Fields to leave out.
    """
    left_out = NOT_CONTENT | without
    names = [field.name for field in fields(record) if field.name not in left_out]
    content = {name: getattr(record, name) for name in names}
    present = {name: value for name, value in content.items() if value is not None}
    return json.dumps(present, sort_keys=True, separators=(",", ":"), default=_turn)


def _digest(kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{kind}\0{name}".encode("ascii")).digest()


def _turn(message: Message) -> list[str]:
    return [message.role, message.content]
