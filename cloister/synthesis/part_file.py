"""`NAME.part`: the batches that are drawn so far, so that an interrupted file goes on.

The first line states what is written; each further line is one batch, and is written to the disk
before the next batch is drawn. A last line that was cut off is drawn again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file
from cloister.json_text import read_json

# Longest line that is read: a batch of texts of the greatest length takes less.
MOST_LINE = 2**26


class PartFile:
    """The open file of an unfinished set.

    Attributes:
        batches: The texts of the batches that were drawn before.
    """

    def __init__(self, file: BinaryIO, path: Path, batches: Sequence[Sequence[str]]) -> None:
        self._file = file
        self._path = path
        self.batches = tuple(tuple(batch) for batch in batches)

    def add(self, texts: Sequence[str]) -> None:
        """Writes a batch to the disk."""
        self._file.write((json.dumps(list(texts), ensure_ascii=True) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Removes the file, once the set is complete."""
        self._path.unlink()


@contextmanager
def opened_part(out: Path, declared: Mapping[str, Any]) -> Iterator[PartFile]:
    """Opens the unfinished file of a set, new or of an interrupted process.

    Args:
        out: The path of the set.
        declared: What is written; an interrupted one goes on only if this is the same.

    Raises:
        UsageError: Another process writes it, or it is of another set.
        BadFileError: It is damaged, or it or the set cannot be written; it is kept then.
    """
    path = out.with_name(f"{out.name}.part")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise bad_file(error, "written") from error
    try:
        with os.fdopen(descriptor, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{out}: another process writes it; wait for its end") from None
            except OSError:  # a file system without locks: go on without one
                pass
            yield PartFile(file, path, _read(file, path, declared))
    except OSError as error:  # a full disk, here or in the set itself
        raise BadFileError(
            f"{out}: cannot be written ({error.strerror}); what was drawn is kept in {path.name}: "
            "make room, and give the same command again to go on"
        ) from error


def _read(file: BinaryIO, path: Path, declared: Mapping[str, Any]) -> list[list[str]]:
    """Reads the batches, and leaves the file at the end of its last whole line."""
    head = json.loads(json.dumps(dict(declared)))
    batches: list[list[str]] = []
    end = 0
    try:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), b"")):
            if not line.endswith(b"\n"):
                if len(line) > MOST_LINE:
                    raise ValueError(f"a line of more than {MOST_LINE:,} bytes")
                break  # a crash cut it off
            value = read_json(line, most_bytes=MOST_LINE)
            if number == 0 and value != head:
                raise UsageError(
                    f"{path}: an unfinished set of another model or other options; give the same "
                    "ones to go on with it, or remove it"
                )
            if number:
                if type(value) is not list or not all(type(text) is str for text in value):
                    raise ValueError(f"line {number + 1} is not a list of texts")
                batches.append(value)
            end += len(line)
    except (OSError, ValueError, TypeError) as error:
        raise BadFileError(f"{path}: damaged ({error}); remove it, and begin again") from error
    file.seek(end)
    file.truncate()
    if not end:
        file.write((json.dumps(head) + "\n").encode())
        file.flush()
    return batches
