"""Reads rows of an Arrow IPC file, in the file or the stream format (as `datasets` saves)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from cloister.data.columnar import ArrowColumns, as_data_errors
from cloister.data.values import Row
from cloister.files import open_file

# The first bytes of a file in the file format; one in the stream format begins with a length.
_MAGIC = b"ARROW1"


def arrow_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file, each with its number, from 1.

    Args:
        path: The file.
        needed: Columns whose values are needed; of others only the types are known.

    Raises:
        DataError: The file is damaged, names a needed column twice, or a row is too large.
        OSError: The file cannot be read.
    """
    with as_data_errors(path), open_file(path) as file:
        stream = _Bounded(file, path.stat().st_size)
        is_file = stream.read(len(_MAGIC)) == _MAGIC
        stream.seek(0)
        if is_file:
            reader = pa.ipc.open_file(stream)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(stream)
            batches = iter(reader)
        columns = ArrowColumns(path, reader.schema, needed)
        for batch in batches:
            batch.validate(full=True)  # a hostile offset may point outside of the file
            if columns.read:
                yield from columns.rows(batch.select(columns.read))
            elif batch.num_rows:  # one row, so that a message can list the columns
                yield 1, columns.others
                return


class _Bounded:
    """A file whose reads stop at its end: a damaged length would otherwise fill the memory."""

    closed = False

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """Reads up to `count` bytes, at most those that the file still has."""
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if count < 0 else min(count, left))

    def seekable(self) -> bool:
        """Returns True: positions in the file can be set."""
        return True

    def readable(self) -> bool:
        """Returns True: the file is open for reading."""
        return True

    def writable(self) -> bool:
        """Returns False: the file is never written."""
        return False

    def close(self) -> None:
        """Does nothing: the caller that opened the file closes it."""
