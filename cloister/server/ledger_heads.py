"""The ledger heads that the coordinator received from the sites, across all runs.

`heads/KEY` is one file per ledger, named by its public key: a line of 64 hex digits for each
release, in the order of first arrival. The last head goes into the next question to the site, which
refuses if its ledger lacks that entry (`client.rollback`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cloister.errors import BadFileError

# SHA-256 in hex, and the line's end; a ledger's public key in hex.
LINE = 65
_HASH = re.compile("[0-9a-f]{64}")


class Heads:
    """Heads by ledger; each is on disk before its answer counts.

    Args:
        folder: The folder; made when the first head comes.

    Guarantees:
        `last` never goes back: a release that is sent again is known already. A line that a crash
        cut off counts as not written: its answer did not count either, and the site is asked again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, list[str]] = {}

    def last(self, ledger: str) -> str:
        """The newest head of a ledger; empty if none came yet.

        Args:
            ledger: Its public key in hex.

        Raises:
            BadFileError: Its file is damaged.
        """
        known = self._of(ledger)
        return known[-1] if known else ""

    def add(self, ledger: str, head: str) -> None:
        """Stores a head; it is on disk when this returns.

        Raises:
            BadFileError: It cannot be written; then its answer must not count.
        """
        known = self._of(ledger)
        if head in known or not _HASH.fullmatch(head):
            return
        path = self._folder / ledger
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                # Write after the last whole line, over a part that a crash left.
                os.ftruncate(descriptor, LINE * len(known))
                os.lseek(descriptor, 0, os.SEEK_END)
                if os.write(descriptor, head.encode() + b"\n") != LINE:
                    raise OSError("no room")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not known:
                _sync(self._folder)
        except OSError as error:
            raise BadFileError(
                f"{path}: cannot be written ({error}); free space or correct the permissions, then "
                "resume the run"
            ) from error
        known.append(head)

    def _of(self, ledger: str) -> list[str]:
        if ledger not in self._known:
            self._known[ledger] = self._read(ledger)
        return self._known[ledger]

    def _read(self, ledger: str) -> list[str]:
        if not _HASH.fullmatch(ledger):
            raise BadFileError(
                f"{ledger[:64]!r}: not a ledger's public key; approve the site again"
            )
        path = self._folder / ledger
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadFileError(f"{path}: cannot be read ({error}); correct that first") from error
        whole = content[: len(content) // LINE * LINE]
        lines = whole.decode("ascii", "replace").splitlines()
        if len(lines) * LINE != len(whole) or not all(_HASH.fullmatch(line) for line in lines):
            raise BadFileError(
                f"{path}: damaged; restore it from the coordinator's backup (cloister server "
                "restore), or remove it: an earlier rollback at that site is then not noticed"
            )
        return lines


def _sync(folder: Path) -> None:
    """Makes new names durable: of a file in the folder, and of the folder itself."""
    for place in (folder, folder.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
