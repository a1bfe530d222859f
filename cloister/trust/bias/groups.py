"""Assigns public records to groups, by a column's value or by terms in their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloister.bounds import listed
from cloister.data.config import DataConfig
from cloister.data.load import file_rows
from cloister.data.records import ChatRecord, ItemsRecord, PairRecord, Record, TokenRecord
from cloister.data.source import RELEASED
from cloister.data.values import Number
from cloister.errors import DataError, UsageError
from cloister.toml_text import read_toml
from cloister.trust.term_lists import key_of, occurs, words_of

# Most groups; a column with more values has names or numbers and not groups of persons.
MOST_GROUPS = 50
# The group of records in which no group's term occurs.
NO_TERM = "no term"
_REMEDY = 'write one group per line, such as: women = ["she", "her"]'


@dataclass(frozen=True)
class Groups:
    """Groups of records; with terms a record may be in several groups.

    Attributes:
        by: The column or file that defines the groups, for the report.
        names: The groups' names.
        members: Whether a record is in a group, bool [G, N].
        left_out: Number of records that are in no group.
    """

    by: str
    names: tuple[str, ...]
    members: np.ndarray
    left_out: int


def groups_by_column(path: Path, columns: DataConfig, column: str, count: int) -> Groups:
    """Groups records by the value of a column.

    Args:
        path: The file of records.
        columns: The study's columns, for the file's form.
        column: The column's name.
        count: Number of records in the file.

    Raises:
        UsageError: The records do not come from a file, or the column has one value or too many.
        DataError: The column does not exist.
    """
    if not path.is_file():
        raise UsageError(
            f"--group {column}: the run's test set, {path}, is not a file with this column; name a "
            "file with --test, or give words for each group with --terms"
        )
    values: list[str | None] = []
    found: dict[str, None] = {}
    for _, row in file_rows(path, "test", (column,), RELEASED, columns.form(str(path))):
        found |= dict.fromkeys(row)
        value = row.get(column)
        written = value.written if isinstance(value, Number) else value
        values.append(str(written) if isinstance(written, str | bool) else None)
    if column not in found:
        held = listed(list(found))
        raise DataError(f"{path}: no column {column!r} (found: {held}); name one of them")
    names = sorted({value for value in values if value})
    if len(names) < 2 or len(names) > MOST_GROUPS:
        raise UsageError(
            f"--group {column}: {path.name} has {len(names)} values there "
            f"({listed(names) or 'none'}); from 2 to {MOST_GROUPS} are needed to compare groups"
        )
    assert len(values) == count  # every row was a record
    members = np.array([[value == name for value in values] for name in names])
    left_out = sum(not value for value in values)
    return Groups(f"the column {column!r}", tuple(names), members, left_out)


def read_terms(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads lists of terms by group, from TOML.

    Raises:
        BadFileError: The file cannot be read.
        UsageError: It has no group, or a group is not a list of terms.
    """
    tables = read_toml(path, _REMEDY)
    found: dict[str, tuple[str, ...]] = {}
    for name, terms in tables.items():
        texts = [t for t in terms if isinstance(t, str)] if isinstance(terms, list) else []
        if not texts or texts != terms or not all(map(str.strip, texts)):
            raise UsageError(f"{path}: {name}: a list of terms is needed; {_REMEDY}")
        found[name] = tuple(texts)
    if not 1 <= len(tables) <= MOST_GROUPS:
        raise UsageError(f"{path}: {len(tables)} groups; from 1 to {MOST_GROUPS} are needed")
    return found


def groups_by_terms(
    records: Sequence[Record], terms: Mapping[str, Sequence[str]], source: str
) -> Groups:
    """Groups records by terms that occur in their texts, and adds the group of records without one.

    A term matches whole words in any case, and Chinese characters wherever they follow each other.

    Args:
        records: Public records.
        terms: The terms by group.
        source: The name of the terms' file, for the report.

    Raises:
        UsageError: No term occurs in any record, or fewer than two groups have records.
    """
    texts = [words_of(_texts(record)) for record in records]
    rows = {
        name: np.array([any(occurs(key_of(term), words) for term in each) for words in texts])
        for name, each in terms.items()
    }
    members = np.array(list(rows.values())).reshape(len(terms), -1)
    rows[NO_TERM] = np.asarray(~members.any(axis=0))
    held = {name: row for name, row in rows.items() if row.any()}
    if len(held) < 2:
        raise UsageError(
            f"--terms {source}: of {listed(list(rows))} only {listed(list(held))} has records; "
            "give at least one group whose terms occur in some texts and not in all"
        )
    return Groups(f"the terms of {source}", tuple(held), np.array(list(held.values())), 0)


def _texts(record: Record) -> list[str]:
    if isinstance(record, TokenRecord):
        return [" ".join(record.tokens)]
    if isinstance(record, ChatRecord):
        return [turn.content for turn in record.messages] or [record.text or ""]
    if isinstance(record, PairRecord):
        return [record.text, record.text_b]
    if isinstance(record, ItemsRecord):
        return [" ".join(record.items)]
    return [record.text]
