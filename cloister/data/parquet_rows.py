"""Rows of a Parquet file, through pyarrow's own reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cloister.data.arrow_rows import class_names, rows_of
from cloister.data.values import MOST_ROW_BYTES, Row, Unusable
from cloister.errors import DataError
from cloister.files import open_file

# Rows decoded at a time: few enough that long texts do not fill the memory.
BATCH = 1024


def parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number, from 1.

    Args:
        path: The file.
        needed: Columns to read; of others only the names and types are known.

    Raises:
        DataError: The file is damaged or encrypted, names a needed column twice, or a row is too
            large.
        OSError: It cannot be read.
    """
    try:
        with open_file(path) as stream, pq.ParquetFile(stream) as file:
            yield from _rows(path, file, needed)
    except (
        pa.ArrowException,
        OverflowError,
        RecursionError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Arrow's
            raise
        # Arrow raises Python's own errors too; its messages name types and sizes, not values.
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason.splitlines()[0]})") from error


def _rows(path: Path, file: Any, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    schema = file.schema_arrow
    repeated = [name for name in needed if schema.names.count(name) > 1]
    if repeated:
        raise DataError(
            f"{path}: has the column {repeated[0]!r} twice; which one is meant? Rename or remove "
            "one"
        )
    others: Row = {f.name: Unusable(str(f.type)) for f in schema if f.name not in needed}
    columns = [name for name in dict.fromkeys(needed) if name in schema.names]
    names = class_names(described_features(schema.metadata), str(path))
    number = 0
    if not columns and file.metadata.num_rows:  # a message then says which columns there are
        yield 1, others
    for batch in file.iter_batches(BATCH, columns=columns, use_threads=False) if columns else ():
        for row in rows_of(batch, names):
            number += 1
            check_size(row, batch.nbytes, f"{path.name}, row {number}")
            yield number, {**others, **row}


def check_size(row: Row, batch_bytes: int, where: str) -> None:
    """Refuses a row that is too large.

    Args:
        row: Values by column.
        batch_bytes: Of the batch that it is in: no row of a small batch is counted.
        where: The file and row, for the message.

    Raises:
        DataError: It holds more than `MOST_ROW_BYTES` characters.
    """
    if batch_bytes > MOST_ROW_BYTES and _characters(row) > MOST_ROW_BYTES:
        raise DataError(
            f"{where}: longer than {MOST_ROW_BYTES >> 20} MiB, the most that a row may hold; "
            "correct or split it"
        )


def described_features(metadata: Any) -> object:
    """What `datasets` wrote about the columns, if it wrote the file."""
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
