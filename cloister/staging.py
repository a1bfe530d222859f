"""A private folder beside a place: what is made in it then appears at the place in one step."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister.errors import UsageError
from cloister.files import bad_file
from cloister.owner_only import private_folder


@contextmanager
def staging(target: Path, done: str = "restored") -> Iterator[Path]:
    """A folder `.NAME.restoring` beside a place, for one process at a time; gone at the end.

    Args:
        target: The place; folders above it are made.
        done: What is done with it, for messages.

    Raises:
        UsageError: Another process is at it.
        BadFileError: It cannot be written, there or by whoever uses it.
    """
    stage = target.parent / f".{target.name}.restoring"
    try:
        private_folder(stage)
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise bad_file(error, done) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{target}: is being {done} by another process") from error
    try:
        _empty(stage)  # of what was left by one that was killed
        yield stage
    except (OSError, ValueError) as error:
        raise bad_file(error, done) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
