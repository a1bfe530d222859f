"""Hashes a study's public training set, and refuses records that are in a test set too.

A model that was trained on a test set's texts scores well on them, and such scores say nothing
about other texts. So a study refuses them. Near duplicates are those of `cloister.data.check.near`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloister.data.check.near import Fingerprints
from cloister.data.config import DataConfig
from cloister.data.load import load
from cloister.data.public_file import check_sha256, file_sha256
from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    PairRecord,
    Record,
    RecordKind,
    TokenRecord,
)
from cloister.errors import DataError

# The recipe's key that names the set, for messages.
KEY = "data.public"


@dataclass(frozen=True)
class Overlap:
    """Counts of one set's records that another set has too.

    Attributes:
        exact: Number of records with the same text as one of the other set.
        near: Number of further records that are near duplicates of one.
        first: Index of the first record of both kinds; None: there is none.
    """

    exact: int
    near: int
    first: int | None

    @property
    def count(self) -> int:
        """Returns the number of records of both kinds."""
        return self.exact + self.near


def refuse_contaminated(records: Sequence[Record], scored: Sequence[Record]) -> None:
    """Refuses public training records that are scored too.

    Args:
        records: The public training records.
        scored: The public test and validation sets.

    Raises:
        DataError: There are such records; the message has their number and the first one.
    """
    if not records:
        return
    found = overlap(records, scored)
    if found.first is not None:
        raise DataError(
            f"{KEY}: {found.count} of {len(records)} records are in a test or validation set "
            f"too ({found.exact} with the same text, {found.near} nearly); the first is record "
            f"{found.first + 1}. Scores on records of the training say nothing about new records; "
            "remove these records from the public file"
        )


def overlap(records: Sequence[Record], others: Iterable[Record]) -> Overlap:
    """Counts the records that another set has too, whatever their labels.

    Args:
        records: The set whose records are counted.
        others: The other set.
    """
    prints = Fingerprints(near=True)
    known = 0
    for record in others:
        prints.add(text_of(record))
        known += 1
    for record in records:
        prints.add(text_of(record))
    exact = _found(prints.exact(), known)
    both = _found(prints.near(), known)
    places = np.flatnonzero(both)
    first = int(places[0]) if len(places) else None
    return Overlap(int(exact.sum()), int(both.sum() - exact.sum()), first)


def stated_public_set(data: DataConfig, kind: RecordKind) -> DataConfig:
    """Returns the `[data]` section with hash and size of its public training set, if it has one.

    Args:
        data: The section of a recipe whose public file is on this machine.
        kind: The kind of record that the task reads.

    Raises:
        DataError: The file is missing, has another hash than the recipe states, or a row of it does
            not fit the task.
    """
    if data.public is None:
        return data
    found = file_sha256(Path(data.public).expanduser(), KEY)
    check_sha256(found, data.public_sha256, data.public, KEY)
    count = len(public_records(data, kind))
    return replace(data, public_sha256=found, public_count=count)


def public_records(data: DataConfig, kind: RecordKind) -> list[Record]:
    """Reads the public training set of a `[data]` section; empty if it names none.

    Raises:
        DataError: The file cannot be read, or a row does not fit the task.
    """
    return [] if data.public is None else load(data.public, "validation", kind, data)


def _found(groups: Any, known: int) -> Any:
    """Returns whether each later text is in a group of one of the first `known`, bool [n]."""
    return np.isin(groups[known:], groups[:known])


def text_of(record: Record) -> str:
    """Returns the text by which records are compared, without labels, scores or tags."""
    if isinstance(record, PairRecord):
        return f"{record.text}\n{record.text_b}"
    if isinstance(record, TokenRecord):
        return " ".join(record.tokens)
    if isinstance(record, ItemsRecord):
        return " ".join(map(str, record.items))
    if isinstance(record, ChatRecord):
        return record.text or "\n".join(one.content for one in record.messages)
    return record.text
