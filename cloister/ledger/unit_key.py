"""A site's key for the keyed hash of its units; it decides which units belong together.

It is made once and kept for the data set's life: with another key, units change their groups, and a
unit that was held out before would be trained on. It never leaves the site. Whoever has it can tell
which group a record that they know would be in.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import LedgerError
from cloister.owner_only import tighten

# As long as the output of SHA-256: a longer key adds nothing (RFC 2104, section 3).
BYTES = 32


@dataclass(frozen=True)
class UnitKey:
    """The key, whose value is in no text.

    Attributes:
        secret: Its bytes.
    """

    secret: bytes

    @property
    def fingerprint(self) -> str:
        """A value by which others see that the key is the same one; it reveals nothing else."""
        return hmac.digest(self.secret, b"fingerprint", "sha256").hex()[:32]

    def __repr__(self) -> str:
        return f"UnitKey({self.fingerprint[:8]}…)"


def unit_key_file(ledger: Path) -> Path:
    """The place of the key: beside the data set's ledger."""
    return ledger.with_name(ledger.name + ".units.key")


def unit_key(ledger: Path) -> UnitKey:
    """Reads a data set's key, or makes it, mode 0600, if there is none yet.

    Args:
        ledger: Path of the data set's ledger.

    Raises:
        LedgerError: It cannot be read or written, or the file is damaged.
    """
    path = unit_key_file(ledger)
    try:
        if not path.exists():
            _make(path)
        tighten(path)
        text = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"{path}: the key of its units cannot be read or written ({error.strerror})"
        ) from error
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != BYTES:
        raise LedgerError(f"{path}: does not have a key of {BYTES} bytes; restore it from a backup")
    return UnitKey(secret)


def _make(path: Path) -> None:
    """Writes a new key under another name and links it, so that no reader finds half of one, and of
    two processes that make one at the same time both read the same."""
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)
