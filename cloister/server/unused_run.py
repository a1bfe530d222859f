"""Clears run folders in which nothing was charged, and locks a folder for one process.

A first try that fails before its first round leaves a recipe and ledgers without a charge. Such a
folder is cleared when a new run begins in it. A folder with any charge is always kept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.evidence.began import read_began
from cloister.ledger.storage import LedgerFile
from cloister.server.run_copy import URL_MARK

# What a run writes before its first round is charged. Anything else belongs to the user or to a
# round. `MARK` is written when a run's folder is made; a recipe alone may be the user's.
MARK = ".begun"
EARLY = frozenset(
    {
        MARK,
        URL_MARK,
        "recipe.toml",
        "proof.json",
        "untrained.json",
        "ledgers",
        "start",
        "tensorboard",
    }
)
# Files beside a simulated site's ledger at that time: its key, its head, its lock, a journal.
BESIDE_LEDGER = (".ledger", ".key", ".head", ".lock", "-journal")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks a run's folder, so that no other process clears it or runs in it.

    Args:
        folder: The run's.

    Raises:
        UsageError: Another process runs in it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: another process runs in it; wait for its end, or choose another --out"
            ) from None
        except OSError:  # a file system without locks: go on without one
            pass
        yield
    finally:
        os.close(descriptor)


def clear_unused(folder: Path, records: str | None = None) -> bool:
    """Empties a run's folder in which no round was closed and nothing was charged.

    Args:
        folder: Any existing folder.
        records: Name of the folder in it where a run from Python keeps data that were in memory; it
            is cleared too if the run's recipe names every file in it.

    Returns:
        Whether it was emptied. In doubt it stays as it is: if a ledger cannot be read, a file is
        there that no run writes so early, or another process runs in it.
    """
    if not (folder / MARK).is_file() or not (folder / "recipe.toml").is_file():
        return False
    try:
        with held(folder):
            if not _is_unused(folder, records):
                return False
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    except (OSError, UsageError):
        return False
    return True


def _is_unused(folder: Path, records: str | None) -> bool:
    """Whether every file in it was written before a first charge."""
    present = [path for path in folder.iterdir() if not _is_own_records(path, records)]
    if any(path.name not in EARLY or path.is_symlink() for path in present):
        return False
    ledgers = folder / "ledgers"
    beside = list(ledgers.iterdir()) if ledgers.is_dir() else []
    if not all(path.name.endswith(BESIDE_LEDGER) for path in beside):
        return False
    heads = [path.name for path in beside if path.name.endswith(".head")]
    if not {name.removesuffix(".head") for name in heads} <= {path.name for path in beside}:
        return False  # a ledger was removed, so its charges are unknown
    try:
        # A ledger's first entry opens it; every further one is a charge or a release. A copy from
        # the run that this one begins with ends where that run's ledger ended.
        copied = _copied_lengths(folder)
        return all(
            len(LedgerFile(path).entries()) == copied.get(path.stem, 1)
            for path in ledgers.glob("*.ledger")
        )
    except (LedgerError, BadFileError):
        return False


def _copied_lengths(folder: Path) -> dict[str, int]:
    """The number of entries of each ledger that was copied into the folder, by site."""
    began = read_began(folder)
    sites = {} if began is None else began.sites
    return {site: one.head.seq + 1 for site, one in sites.items() if one is not None}


def _is_own_records(path: Path, records: str | None) -> bool:
    """Whether a folder holds nothing but files that the run's recipe names in it."""
    if path.name != records or not path.is_dir() or path.is_symlink():
        return False
    recipe = (path.parent / "recipe.toml").read_text(encoding="utf-8")
    return all(f'"{file}"' in recipe for file in path.iterdir())
