"""Makes folders and files that only their owner can read, with any umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER, FILE, UMASK = 0o700, 0o600, 0o077
_OTHERS = 0o077


def cache_folder(name: str) -> Path:
    """Returns a folder of this name in Cloister's part of the user's cache; it may not exist yet.

    It is `$XDG_CACHE_HOME/cloister/NAME`, or in `~/.cache`.
    """
    said = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # The XDG base directory specification says to ignore relative paths.
    cache = said if said.is_absolute() else Path.home() / ".cache"
    return cache / "cloister" / name


def private_folder(path: Path) -> None:
    """Makes a folder that only its owner can enter, or restricts an existing one.

    Missing parents are made in the same way; existing ones are not changed.

    Raises:
        OSError: The folder cannot be made.
    """
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=FOLDER, exist_ok=True)
    path.mkdir(mode=FOLDER, exist_ok=True)
    tighten(path)


@contextmanager
def private_umask() -> Iterator[None]:
    """Sets a umask, inside the context, by which new files are accessible to their owner only."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def tighten(path: Path) -> bool:
    """Removes others' rights to a file or folder; its owner's do not change.

    Returns:
        Whether other users have no rights now, by its mode; True also if it does not exist.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
    except FileNotFoundError:
        return True
    except OSError:  # it has another owner, or a file system without rights
        return False
    return not rights_of_others(path)


def tighten_all(folder: Path) -> None:
    """Makes a folder and the files directly in it private; links are not changed."""
    tighten(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_symlink():
            tighten(path)


def rights_of_others(path: Path) -> str:
    """Returns what others than the owner may do with a file or folder, in words; "": nothing.

    Raises:
        OSError: It does not exist.
    """
    return _words(path.stat().st_mode)


def _words(mode: int) -> str:
    words = ["read", "write", "enter" if stat.S_ISDIR(mode) else "run"]
    given = [word for word, bit in zip(words, (0o044, 0o022, 0o011), strict=True) if mode & bit]
    return " and ".join(given)


def exposed(path: Path) -> str:
    """Returns what others can do with a path, by its mode and those of all folders above, in words.

    Returns:
        As `rights_of_others`; "" also if a folder above keeps them out, or nothing exists there.
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
