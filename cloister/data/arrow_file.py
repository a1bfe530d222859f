"""Rows of an Arrow IPC file, in the file or the stream format (as `datasets` saves)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from cloister.data.arrow_rows import class_names, rows_of
from cloister.data.parquet_rows import check_size, described_features
from cloister.data.values import Row, Unusable
from cloister.errors import DataError
from cloister.files import open_file

# How a file in the file format begins; one in the stream format begins with a length.
_MAGIC = b"ARROW1"


def arrow_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number, from 1.

    Args:
        path: The file.
        needed: Columns whose values are needed; of others only the types are known.

    Raises:
        DataError: The file is damaged, names a needed column twice, or a row is too large.
        OSError: It cannot be read.
    """
    try:
        with open_file(path) as file:
            stream = _Bounded(file, path.stat().st_size)
            is_file = stream.read(len(_MAGIC)) == _MAGIC
            stream.seek(0)
            if is_file:
                reader = pa.ipc.open_file(stream)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                reader = pa.ipc.open_stream(stream)
                batches = iter(reader)
            yield from _rows(path, reader.schema, batches, needed)
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


class _Bounded:
    """A file that is asked for no more than it has: a damaged length would fill the memory."""

    closed = False

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """Bytes, as of any file."""
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if count < 0 else min(count, left))

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def readable(self) -> bool:
        """Returns True."""
        return True

    def writable(self) -> bool:
        """Returns False."""
        return False

    def close(self) -> None:
        """Leaves the file to whoever opened it."""


def _rows(
    path: Path, schema: Any, batches: Iterator[Any], needed: Sequence[str]
) -> Iterator[tuple[int, Row]]:
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
    for batch in batches:
        batch.validate(full=True)  # offsets in the file are not trusted to lie within it
        if not columns:  # a message then says which columns there are
            if batch.num_rows:
                yield 1, others
                return
            continue
        chosen = batch.select(columns)
        for row in rows_of(chosen, names):
            number += 1
            check_size(row, chosen.nbytes, f"{path.name}, row {number}")
            yield number, {**others, **row}
