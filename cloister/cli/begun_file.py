"""A file that is written in steps and kept when its writer is killed, so that it can go on.

    .NAME.begun         what was written so far
    .NAME.begun.json    how much of it is whole, of which bytes, and what it is of

A step is synced before it is counted. A writer that goes on cuts off what was not counted, so the
file that it ends with is the one that an unbroken run writes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, publish, sync, sync_folder, write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE

# Most bytes of the second file: a few hashes and options.
MOST_COUNTED = 2**16
_BLOCK = 2**20


@dataclass
class BegunFile:
    """A file of rows that was begun.

    Attributes:
        out: The name that it gets at its end.
        made_of: What it is of.
        file: What was begun, open at its end.
        rows: Rows that are written and synced.
        digest: SHA-256 of these rows.
    """

    out: Path
    made_of: Mapping[str, object]
    file: BinaryIO
    rows: int
    digest: hashlib._Hash

    def write(self, texts: Iterable[str], step: int) -> int:
        """Writes the rows that are not there yet, and gives the file its name.

        Args:
            texts: A row each, with its line's end.
            step: Rows that are synced together.

        Returns:
            All rows of the file.

        Raises:
            OSError: It cannot be written; what was synced is kept.
        """
        waiting = iter(texts)
        while rows := list(islice(waiting, step)):
            content = "".join(rows).encode()
            self.file.write(content)
            sync(self.file)
            self.digest.update(content)
            self.rows += len(rows)
            self._count()
        begun, counted = _places(self.out)
        publish(begun, self.out)
        counted.unlink(missing_ok=True)
        sync_folder(self.out.parent)
        return self.rows

    def _count(self) -> None:
        state = {
            "version": 1,
            "made_of": dict(self.made_of),
            "rows": self.rows,
            "bytes": self.file.tell(),
            "sha256": self.digest.hexdigest(),
        }
        write_whole(_places(self.out)[1], json.dumps(state).encode(), FILE)


@contextmanager
def begun_file(out: Path, made_of: Mapping[str, object]) -> Iterator[BegunFile]:
    """Opens what was begun of a file, or begins it.

    Args:
        out: The file, which is not there yet.
        made_of: What it is of: hashes and options, in JSON's types. What was begun of anything else
            does not go on.

    Raises:
        UsageError: It was begun of something else, or another process writes it.
        BadFileError: What was begun was changed, or the folder cannot be written.
    """
    begun, counted = _places(out)
    try:
        # O_NOFOLLOW: the name can be foreseen, so somebody may have put a link there.
        descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, FILE)
        with os.fdopen(descriptor, "r+b") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadFileError(f"{begun}: no file; remove it")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"{out}: is being written by another process") from error
            _check_own(begun, os.fstat(descriptor))
            # Nothing is there: what a killed writer counted of a file that got its name is old.
            is_empty = os.fstat(descriptor).st_size == 0
            none = (0, 0, hashlib.sha256().hexdigest())
            rows, length, expected = none if is_empty else _counted(counted, begun, made_of)
            digest = _digest(file, length)
            if digest.hexdigest() != expected:
                raise BadFileError(
                    f"{begun}: was changed after it was written; remove it and {counted.name} to "
                    "begin again"
                )
            file.truncate(length)
            yield BegunFile(out, made_of, file, rows, digest)
    except OSError as error:
        if error.filename is not None:
            raise bad_file(error, "written") from error
        raise BadFileError(  # a full disk: the error of a write names no file
            f"{out}: cannot be written ({error.strerror}); the rows before are kept in "
            f"{begun.name}: make room, and give the same command again to go on"
        ) from error


def _places(out: Path) -> tuple[Path, Path]:
    begun = out.with_name(f".{out.name}.begun")
    return begun, begun.with_name(f"{begun.name}.json")


def _check_own(begun: Path, status: os.stat_result) -> None:
    """Refuses a file that somebody else put there, or reads, or knows by another name.

    Another name is also the one that it got while this process waited for the lock.
    """
    theirs = status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & ~FILE
    if theirs or status.st_nlink != 1 or not begun.exists():
        raise BadFileError(
            f"{begun}: others may use this file, or it has another name too; remove it to begin "
            "again"
        )
    here = begun.stat()
    if (here.st_dev, here.st_ino) != (status.st_dev, status.st_ino):
        raise UsageError(f"{begun}: another process began it again; run this again")


def _counted(counted: Path, begun: Path, made_of: Mapping[str, object]) -> tuple[int, int, str]:
    """Rows, bytes and hash of what is whole; a first step that was cut off is not."""
    if not counted.exists():
        return 0, 0, hashlib.sha256().hexdigest()
    try:
        state = read_json(counted.read_bytes()[: MOST_COUNTED + 1], most_bytes=MOST_COUNTED)
        rows, length = int(state["rows"]), int(state["bytes"])
        known, expected = dict(state["made_of"]), str(state["sha256"])
        if state["version"] != 1 or rows < 0 or length < 0:
            raise ValueError("not of this version")
    except (ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{counted}: damaged ({error}); remove it and {begun.name} to begin again"
        ) from error
    other = sorted(
        name for name in {*known, *made_of} if known.get(name) != dict(made_of).get(name)
    )
    if other:
        raise UsageError(
            f"{begun} was begun with another {', '.join(other)}; give what it was begun with, "
            f"choose another --out, or remove {begun.name} and {counted.name} to begin again"
        )
    return rows, length, expected


def _digest(file: BinaryIO, length: int) -> hashlib._Hash:
    """The hash of a file's first bytes, after which it is positioned."""
    digest, left = hashlib.sha256(), length
    while left and (block := file.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest
