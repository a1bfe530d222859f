"""Reads lines from standard input in a thread, so that time passes in a silent stream too."""

from __future__ import annotations

import queue
import threading
from typing import BinaryIO

from cloister.files import bad_file
from cloister.watching.parsing import MOST_LINE
from cloister.watching.source import LineBatch

# Most lines that wait, and most lines of a batch.
WAITING, TOGETHER = 4096, 1000


class Pipe:
    """Gives the lines of a stream until it ends; a stream cannot be continued after a restart.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        # None: the stream has ended, or cannot be read any more (`_broken`).
        self._lines: queue.Queue[tuple[int, bytes | None] | None] = queue.Queue(WAITING)
        self._broken: OSError | None = None
        threading.Thread(target=self._fill, daemon=True).start()

    def read(self, seconds: float) -> LineBatch:
        """Returns the next lines; see `PredictionSource`.

        Raises:
            BadFileError: The stream cannot be read any more; its earlier lines were given.
        """
        try:
            first = self._lines.get(timeout=seconds)
        except queue.Empty:
            return LineBatch()
        if first is None:
            if self._broken is not None:
                raise bad_file(self._broken, "read")
            return LineBatch(ended=True)
        lines = [first]
        while len(lines) < TOGETHER:
            try:
                more = self._lines.get_nowait()
            except queue.Empty:
                break
            if more is None and self._broken is not None:
                self._lines.put_nowait(None)  # the next call says so
                break
            if more is None:
                return LineBatch(tuple(lines), ended=True)
            lines.append(more)
        return LineBatch(tuple(lines))

    def close(self) -> None:
        """Does nothing: the stream's owner closes it."""

    def _fill(self) -> None:
        number, skipping = 0, False
        try:
            while piece := self._stream.readline(MOST_LINE + 1):
                is_whole = piece.endswith(b"\n")
                if skipping or (len(piece) > MOST_LINE and not is_whole):
                    if is_whole:
                        number += 1
                        self._lines.put((number, None))
                    skipping = not is_whole
                    continue
                number += 1
                if piece.strip():
                    self._lines.put((number, piece.rstrip(b"\n")))
            if skipping:
                self._lines.put((number + 1, None))
        except OSError as error:
            self._broken = error
        except ValueError:  # its owner has closed it: the end, as for any stream
            self._lines.put(None)
            return
        self._lines.put(None)
