"""Reads rows of a Parquet file, with pyarrow's own reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from cloister.data.columnar import ArrowColumns, as_data_errors
from cloister.data.values import Row
from cloister.files import open_file

# Rows decoded at a time: few enough that long texts do not fill the memory.
BATCH = 1024


def parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number, from 1.

    Args:
        path: The file.
        needed: Columns to read; for the others only names and types are known.

    Raises:
        DataError: The file is damaged or encrypted, names a needed column twice, or a row is too
            large.
        OSError: The file cannot be read.
    """
    with as_data_errors(path), open_file(path) as stream, pq.ParquetFile(stream) as file:
        columns = ArrowColumns(path, file.schema_arrow, needed)
        if not columns.read:
            if file.metadata.num_rows:  # one row, so that a message can list the columns
                yield 1, columns.others
            return
        for batch in file.iter_batches(BATCH, columns=columns.read, use_threads=False):
            yield from columns.rows(batch)
