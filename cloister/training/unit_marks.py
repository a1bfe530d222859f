"""A keyed hash of each privacy unit: what decides a unit's group, and nothing else decides.

    mark = first 64 bits of HMAC-SHA256(key, purpose ‖ 0 ‖ kind ‖ 0 ‖ name)

The name is a person's identifier, or a record's content as canonical JSON (RFC 2104; the key is in
`ledger.unit_key`). It has no position, no count and nothing of other units: if a unit is added or
removed, no other unit's mark changes. Marks for different purposes are independent, so the unit's
group in one study tells nothing about whether it is held out.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from cloister.data.records import Message, Record
from cloister.ledger.unit_key import UnitKey
from cloister.privacy.units import Unit
from cloister.training.units import groups_of

Marks = NDArray[np.uint64]

# Fields that are not content: who has the record, whom it is about, and of which it is a copy.
NOT_CONTENT = frozenset({"site", "person", "unit"})


def unit_marks(records: Sequence[Record], unit: Unit, key: UnitKey, purpose: str) -> Marks:
    """Computes the mark of each unit, in the order of `encode_units`, uint64 [units].

    Args:
        records: A site's records; private.
        unit: The privacy unit.
        key: The data set's key.
        purpose: What the marks are for, such as `group`.

    Guarantees:
        Total: it raises for no record. A unit's mark is a function of key, purpose and the unit's
        own rows. Of copies the first row counts, which is their source in the files of
        `cloister data augment`. Equal records have equal marks.
    """
    if not purpose.isascii() or "\0" in purpose:
        raise ValueError(f"purpose {purpose!r}: ASCII without a zero is needed")
    found = [
        _mark(records[places[0]], unit, key.secret, purpose) for places in groups_of(records, unit)
    ]
    return np.array(found, dtype=np.uint64)


def _mark(first: Record, unit: Unit, secret: bytes, purpose: str) -> int:
    if unit is Unit.PERSON and first.person is not None:
        kind, name = "person", json.dumps(first.person)
    else:
        kind, name = "content", content_of(first)
    message = "\0".join((purpose, kind, name)).encode("ascii")
    return int.from_bytes(hmac.digest(secret, message, "sha256")[:8])


def content_of(record: Record) -> str:
    """Returns a record's content as canonical JSON in ASCII, the same in every version.

    Absent fields are left out, so that a field which a later version adds changes no older record.
    """
    names = [field.name for field in fields(record) if field.name not in NOT_CONTENT]
    content = {name: getattr(record, name) for name in names}
    present = {name: value for name, value in content.items() if value is not None}
    return json.dumps(present, sort_keys=True, separators=(",", ":"), default=_turn)


def _turn(message: Message) -> list[str]:
    return [message.role, message.content]
