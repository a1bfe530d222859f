"""Shared by the Parquet and Arrow readers: columns by name, rows of a batch, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from cloister.data.arrow_rows import class_names, rows_of
from cloister.data.values import MOST_ROW_BYTES, Row, Unusable
from cloister.errors import DataError


@contextmanager
def as_data_errors(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises while a file is read into one message.

    Raises:
        DataError: The file is damaged.
        OSError: The system cannot read it.
    """
    try:
        yield
    except (
        pa.ArrowException,
        OverflowError,
        RecursionError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system, not Arrow
            raise
        # Arrow raises Python's own errors too; its messages name types and sizes, not values.
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"{path}: cannot be read ({reason.splitlines()[0].rstrip('.')}); copy it again, or "
            "write it again"
        ) from error


class ArrowColumns:
    """The columns of a file that are read, and the types of the others.

    Args:
        path: The file.
        schema: A `pyarrow.Schema`.
        needed: Columns whose values are needed.

    Attributes:
        read: The needed columns that the file has.
        others: A row with the types of the other columns in place of values.

    Raises:
        DataError: A needed column, or a class name of a column, is duplicate.
    """

    def __init__(self, path: Path, schema: Any, needed: Sequence[str]) -> None:
        repeated = [name for name in needed if schema.names.count(name) > 1]
        if repeated:
            raise DataError(
                f"{path}: duplicate column {repeated[0]!r}, so it is not clear which one to read; "
                "rename or remove one"
            )
        self._path, self._number = path, 0
        self.others: Row = {f.name: Unusable(str(f.type)) for f in schema if f.name not in needed}
        self.read = [name for name in dict.fromkeys(needed) if name in schema.names]
        self._names = class_names(_described_features(schema.metadata), str(path))

    def rows(self, batch: Any) -> Iterator[tuple[int, Row]]:
        """Yields the rows of the file's next batch, each with its number, from 1.

        Args:
            batch: A `pyarrow.RecordBatch` of the columns that are read.

        Raises:
            DataError: A row is too large.
            pyarrow.ArrowException: The batch is damaged.
        """
        for row in rows_of(batch, self._names):
            self._number += 1
            # If the whole batch is small, no row needs to be counted.
            if batch.nbytes > MOST_ROW_BYTES and _characters(row) > MOST_ROW_BYTES:
                raise DataError(
                    f"{self._path.name}, row {self._number}: longer than {MOST_ROW_BYTES >> 20} "
                    "MiB, the most that a row may hold; correct or split it"
                )
            yield self._number, {**self.others, **row}


def _described_features(metadata: Any) -> object:
    """Returns the features that `datasets` wrote into the file; None: it did not write it."""
    try:
        described = json.loads((metadata or {})[b"huggingface"])
        features: object = described["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return features


def _characters(value: object) -> int:
    if isinstance(value, dict):
        return sum(_characters(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_characters(inner) for inner in value)
    return len(value) if isinstance(value, str) else 1
