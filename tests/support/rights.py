"""Finds files in a folder that other users could read or write."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_umask() -> Iterator[None]:
    """Sets a umask under which new files without a stated mode are open to everybody."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(root: Path) -> dict[str, int]:
    """Returns the paths in a folder that others can reach and read or write, with their modes.

    A folder that they cannot enter hides all that is in it.
    """
    found = {}
    for path in sorted(root.iterdir()):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o066:
            found[str(path.relative_to(root))] = mode
        if path.is_dir() and mode & 0o011:
            found |= {f"{path.name}/{name}": m for name, m in open_to_others(path).items()}
    return found
