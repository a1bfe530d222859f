"""Follows a file that grows, also over rotation, truncation and restarts of the watch."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

from cloister.files import bad_file, open_file
from cloister.watching.parsing import MOST_LINE
from cloister.watching.source import LineBatch, Mark

# Bytes that are read at once: a batch is parsed and stored in well under a second.
CHUNK = 2**20
# First bytes of a file that tell it from another one: a few lines.
HEAD = 1024
# Seconds between two looks at a file that does not grow.
POLL = 0.2


class FileTail:
    """Gives the lines of a file, in order and once each.

    Args:
        path: The file; it need not be there yet if it is followed.
        mark: The place to continue at; None: the file's beginning.
        follow: Whether to wait for more lines at its end.
        sleep: The function that waits some seconds.

    Guarantees:
        Every line is given once, in order, over any number of restarts from the mark of the last
        batch, also when the file is renamed and another one takes its name, as long as the old one
        is in the same folder. A last line without an end is given when its end comes.
    """

    def __init__(
        self,
        path: Path,
        mark: Mark | None,
        *,
        follow: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._follow, self._sleep = path, follow, sleep
        self._file: BufferedReader | None = None
        self._rest = b""
        self._mark = mark
        self._notices: list[str] = []
        self._has_said_absent = False

    def read(self, seconds: float) -> LineBatch:
        """Returns the next lines; see `PredictionSource`.

        Raises:
            BadFileError: The file cannot be read, or is not there and not waited for.
        """
        try:
            return self._read(seconds)
        except OSError as error:
            raise bad_file(error, "read") from error

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, seconds: float) -> LineBatch:
        waited = 0.0
        while True:
            if self._file is None and not self._open():
                if not self._follow:
                    raise FileNotFoundError(2, "no such file", str(self._path))
                self._say_absent()
            elif lines := self._lines():
                return self._batch(tuple(lines))
            elif left := self._moved_on():
                if left != [b""] and self._mark is not None:
                    self._mark = replace(self._mark, line=self._mark.line + 1)
                    return self._batch(((self._mark.line, left[0]),))
                continue
            elif not self._follow:
                return replace(self._batch(()), ended=True)
            if waited >= seconds or self._notices:
                return self._batch(())
            self._sleep(POLL)
            waited += POLL

    def _say_absent(self) -> None:
        """Says once that the file is waited for: its name may be misspelt."""
        if not self._has_said_absent:
            self._has_said_absent = True
            self._notices.append(
                f"{self._path}: no such file yet; it is waited for. If its name is another, "
                "correct source.file and start again"
            )

    def _batch(self, lines: tuple[tuple[int, bytes | None], ...]) -> LineBatch:
        notices, self._notices = tuple(self._notices), []
        return LineBatch(lines, self._mark, notices=notices)

    def _open(self) -> bool:
        """Opens the file of the mark, whatever its name is by now, or the one of the name."""
        mark = self._mark
        if mark is not None and (place := self._place_of(mark)) is not None:
            self._file = open_file(place)
            if self._is_same(self._file, mark):
                self._file.seek(mark.offset)
                return True
            self._file.close()
            self._file = None
            self._notices.append(
                f"{self._path}: was emptied and filled again; it is read from its beginning"
            )
        elif mark is not None and self._path.exists():
            self._notices.append(
                f"{self._path}: is another file than before, and the one before is gone; what it "
                "got last may not have been read"
            )
        if not self._path.exists():
            return False
        self._begin(open_file(self._path))
        return True

    def _begin(self, file: BufferedReader) -> None:
        status = os.fstat(file.fileno())
        self._file, self._rest = file, b""
        line = 0 if self._mark is None else self._mark.line
        self._mark = Mark(status.st_dev, status.st_ino, 0, hashlib.sha256().hexdigest(), 0, line)

    def _place_of(self, mark: Mark) -> Path | None:
        """Where the marked file is: under its name, or renamed in its folder."""
        near = [self._path]
        if self._path.parent.is_dir():
            near += sorted(self._path.parent.glob(f"{_literal(self._path.name)}*"))
        for place in near:
            try:
                status = place.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == (mark.device, mark.inode):
                return place
        return None

    def _is_same(self, file: BufferedReader, mark: Mark) -> bool:
        """Whether a file still begins as it did and is as long as was read."""
        file.seek(0)
        head = file.read(mark.head_bytes)
        same = hashlib.sha256(head).hexdigest() == mark.head
        return same and os.fstat(file.fileno()).st_size >= mark.offset

    def _lines(self) -> list[tuple[int, bytes | None]]:
        """Lines of the next piece of the file that has any; empty at its end."""
        assert self._file is not None
        while more := self._file.read(CHUNK):
            *whole, self._rest = (self._rest + more).split(b"\n")
            if found := self._numbered(whole):
                return found
        return []

    def _numbered(self, whole: list[bytes]) -> list[tuple[int, bytes | None]]:
        assert self._mark is not None
        found: list[tuple[int, bytes | None]] = []
        mark = self._mark
        for text in whole:
            offset = mark.offset + len(text) + 1
            too_long = mark.skipping or len(text) > MOST_LINE
            mark = replace(mark, offset=offset, line=mark.line + 1, skipping=False)
            if text.strip() or too_long:
                found.append((mark.line, None if too_long else text))
        if len(self._rest) > MOST_LINE:
            # Its bytes are given up, so that a line without end takes no memory.
            mark = replace(mark, offset=mark.offset + len(self._rest), skipping=True)
            self._rest = b""
        self._mark = self._with_head(mark)
        return found

    def _with_head(self, mark: Mark) -> Mark:
        """The mark with more of the file's head, while it is shorter than `HEAD`."""
        assert self._file is not None
        size = min(HEAD, mark.offset)
        if size == mark.head_bytes:
            return mark
        head = os.pread(self._file.fileno(), size, 0)
        return replace(mark, head=hashlib.sha256(head).hexdigest(), head_bytes=len(head))

    def _moved_on(self) -> list[bytes | None]:
        """At the end of the open file: whether another took its name, or it was emptied.

        Returns:
            What the file had after its last line's end, which never comes any more: a text, an
            empty one, or None of one too long; nothing: all is as it was.
        """
        assert self._file is not None
        assert self._mark is not None
        at = self._file.tell()
        if not self._is_same(self._file, self._mark):
            self._notices.append(f"{self._path}: was emptied; it is read from its beginning")
            self._file.seek(0)
            self._begin(self._file)
            return [b""]
        self._file.seek(at)
        try:
            status = self._path.stat()
        except OSError:  # between two names
            return []
        if (status.st_dev, status.st_ino) == (self._mark.device, self._mark.inode):
            return []
        # A line may have come after the last look and before the file was renamed.
        if os.fstat(self._file.fileno()).st_size > at:
            return [b""]
        left = None if self._mark.skipping else self._rest.strip()
        self.close()
        self._begin(open_file(self._path))
        return [left]


def _literal(name: str) -> str:
    """A file's name for `glob`, with what acts in it escaped."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)
