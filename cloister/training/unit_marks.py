"""The marks of a site's privacy units, in the order in which they are encoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloister.data.records import Record
from cloister.data.unit_hash import content_digest, mark_of, person_digest
from cloister.ledger.unit_key import UnitKey
from cloister.privacy.units import Unit
from cloister.training.units import groups_of

Marks = NDArray[np.uint64]


def unit_marks(records: Sequence[Record], unit: Unit, key: UnitKey, purpose: str) -> Marks:
    """Computes the mark of each unit (`data.unit_hash`), in the order of `encode_units`, uint64
    [units].

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
    found = [
        mark_of(_digest(records[places[0]], unit), key.secret, purpose)
        for places in groups_of(records, unit)
    ]
    return np.array(found, dtype=np.uint64)


def _digest(first: Record, unit: Unit) -> bytes:
    if unit is Unit.PERSON and first.person is not None:
        return person_digest(first.person)
    return content_digest(first)
