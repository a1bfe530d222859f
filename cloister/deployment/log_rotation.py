"""A log of bounded size, and a thread that writes a child's output into it.

The child writes into a pipe, so that its log can be rotated while it runs: a child with the file
itself would go on writing into the old file. The pipe is always emptied, even if the disk is full,
because a child must never wait for its log.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import IO

# Size at which a file is rotated, and number of older files: 60 MB per process. A SuperLink writes
# about 1 MB per day, so this covers two months.
LARGEST, KEPT = 10_000_000, 5
# What a Linux pipe holds (pipe(7)).
_CHUNK = 65_536


class RotatingLog:
    """A file and its predecessors: `name`, `name.1` (the latest), … `name.5`.

    Args:
        path: The file to write; links are not followed.
        largest: Most bytes per file; None: `LARGEST`.
        kept: Number of older files; None: `KEPT`.

    Raises:
        OSError: It cannot be written.

    Guarantees:
        No file exceeds `largest`. All files together have the end of the output, in order and
        without gaps; bytes lost on a full disk are counted, and the count is written instead.
    """

    def __init__(self, path: Path, largest: int | None = None, kept: int | None = None) -> None:
        self._path = path
        self._largest = LARGEST if largest is None else largest
        self._kept = KEPT if kept is None else kept
        self._lost = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def write(self, content: bytes) -> None:
        """Writes; never raises if the disk is full or missing."""
        missing = f"{self._lost} bytes are missing here: the disk was full\n" if self._lost else ""
        left = missing.encode() + content
        try:
            while left:
                left = left[self._put(left) :]
        except OSError:
            shrank = len(left) <= len(content)
            self._lost = len(left) if shrank else self._lost + len(content)
        else:
            self._lost = 0

    def close(self) -> None:
        """Closes the log's file; no further line is written."""
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _put(self, content: bytes) -> int:
        """Writes the first part that fits, cut after a line; returns its bytes."""
        room = self._largest - self._size
        if len(content) > room:
            whole = content.rfind(b"\n", 0, max(0, room)) + 1
            if whole == 0 and self._size > 0:
                self._turn()
                return 0
            content = content[: whole or self._largest]
        done = os.write(self._file, content)
        self._size += done
        return done

    def _turn(self) -> None:
        for number in range(self._kept, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number - 1).replace(self._numbered(number))
        before = self._file
        self._open()
        os.close(before)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size


class Pump:
    """Copies a pipe into a log until every writer has closed the pipe.

    Args:
        pipe: To read from, unbuffered; closed at the end.
        log: Closed at the end.
    """

    def __init__(self, pipe: IO[bytes], log: RotatingLog) -> None:
        self._pipe, self._log = pipe, log
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def finish(self, patience: float) -> None:
        """Waits until all of it is written.

        Args:
            patience: Most seconds; a process that the child left behind may keep the pipe open for
                ever.
        """
        self._thread.join(patience)

    def _run(self) -> None:
        try:
            while content := self._pipe.read(_CHUNK):
                self._log.write(content)
        finally:
            self._pipe.close()
            self._log.close()
