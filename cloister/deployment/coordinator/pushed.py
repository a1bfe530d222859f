"""A file that says which nodes got new questions: the executor writes it, the gate reads it.

    {"NODE": MARK, …}

Only the executor puts questions into the SuperLink. It gives a node a new random mark after the
SuperLink has stored a question to it. So a node whose mark is the same as before its last poll,
which brought nothing, has no question waiting, and the SuperLink need not be asked.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cloister.files import write_whole

log = logging.getLogger(__name__)

# Largest file that is read: a million nodes of 40 bytes each, far more than one coordinator serves.
LARGEST = 40_000_000


class PushedMarks:
    """Writes the marks.

    Args:
        path: The file. A new writer knows no earlier marks, so with its first push all other nodes
            lose theirs, and each is asked about once more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: dict[str, str] = {}

    def __call__(self, nodes: Iterable[int]) -> None:
        """Marks nodes whose questions the SuperLink has stored.

        If the file cannot be written it is removed, and the gate asks the SuperLink at every poll.
        """
        self._marks |= {str(node): secrets.token_hex(8) for node in nodes}
        try:
            write_whole(self._path, json.dumps(self._marks).encode(), mode=0o600)
        except OSError as error:
            log.error(
                "%s: cannot be written (%s); every poll asks the SuperLink", self._path, error
            )
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class KnownMarks:
    """Reads the marks from the present file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._marks: Mapping[str, str] | None = None

    def refresh(self) -> bool:
        """Reads the file if it is another one than before; returns whether it was."""
        try:
            state = self._path.stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return False
        self._stamp, self._marks = stamp, None if stamp is None else self._read()
        return True

    def of(self, node: int) -> str | None:
        """A node's mark: empty if it has none, None if no marks are known."""
        return None if self._marks is None else self._marks.get(str(node), "")

    def _read(self) -> Mapping[str, str] | None:
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(LARGEST))
            return {str(node): str(mark) for node, mark in found.items()}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            log.error("%s: cannot be read (%s); every poll asks the SuperLink", self._path, error)
            return None
