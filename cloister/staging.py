"""Makes a private folder beside a path, whose content then appears at the path in one step."""

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
    """Makes a folder `.NAME.restoring` beside a path, for one process; it is removed at the end.

    Args:
        target: The path; missing folders above it are made.
        done: What is done with it, for messages.

    Raises:
        UsageError: Another process uses it.
        BadFileError: It cannot be written, here or by the caller.
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
        _empty(stage)  # files of a process that was killed
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
