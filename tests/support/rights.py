"""Who else than its owner could read or write what lies in a folder."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_umask() -> Iterator[None]:
    """While it holds, whoever makes a file and says no mode makes it everybody's."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(root: Path) -> dict[str, int]:
    """What others can reach in a folder and read or write, with its mode; links aside.

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
