"""Folders and files that their owner alone may read, whatever the umask of whoever makes them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
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
    mode = path.stat().st_mode
    words = ["read", "write", "enter" if stat.S_ISDIR(mode) else "run"]
    given = [word for word, bit in zip(words, (0o044, 0o022, 0o011), strict=True) if mode & bit]
    return " and ".join(given)


def is_ours(path: Path) -> bool:
    """Whether this process's user owns what lies there."""
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False
