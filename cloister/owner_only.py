"""Folders and files that their owner alone may read, whatever the umask of whoever makes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER, FILE, UMASK = 0o700, 0o600, 0o077
_OTHERS = 0o077


def private_folder(path: Path) -> None:
    """Makes a folder that its owner alone may enter, or makes one so that is there.

    Parents that are missing are made likewise; those that are there are not ours to close.

    Raises:
        OSError: It cannot be made.
    """
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=FOLDER, exist_ok=True)
    path.mkdir(mode=FOLDER, exist_ok=True)
    tighten(path)


@contextmanager
def private_umask() -> Iterator[None]:
    """While it holds, whatever this process and its children make is their user's alone."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def tighten(path: Path) -> bool:
    """Takes others' rights away from a file or folder; its owner's stay as they are.

    Returns:
        Whether nobody else has any now, as far as its mode says; what is not there has none.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
    except FileNotFoundError:
        return True
    except OSError:  # another's, or a file system without rights
        return False
    return not rights_of_others(path)


def tighten_all(folder: Path) -> None:
    """Makes a folder private and what lies directly in it; links are left as they are."""
    tighten(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_symlink():
            tighten(path)


def rights_of_others(path: Path) -> str:
    """What others than its owner may do with a file or folder, in words; "" for nothing.

    Raises:
        OSError: It is not there.
    """
    return _words(path.stat().st_mode)


def _words(mode: int) -> str:
    words = ["read", "write", "enter" if stat.S_ISDIR(mode) else "run"]
    given = [word for word, bit in zip(words, (0o044, 0o022, 0o011), strict=True) if mode & bit]
    return " and ".join(given)


def exposed(path: Path) -> str:
    """What others can really do with it, by its mode and by those of all folders above, in words.

    Returns:
        As `rights_of_others`; "" also where no folder lets them in, or nothing is there.
    """
    try:
        place = Path(os.path.realpath(path))
        everybody = group = True
        for folder in place.parents:
            mode = folder.stat().st_mode
            everybody &= bool(mode & 0o001)
            group &= bool(mode & 0o011)
        mode = place.stat().st_mode
    except OSError:
        return ""
    return _words(mode & ~(0o007 * (not everybody) | 0o070 * (not group)))
