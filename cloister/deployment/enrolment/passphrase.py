"""Finds the passphrase of the authority's key; never on the command line.

It comes from a file (--ca-passphrase-file or $CLOISTER_CA_PASSPHRASE_FILE), a systemd credential of
the service (LoadCredential=ca-passphrase:FILE), or the terminal.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from cloister.deployment.enrolment.sealed_key import LONGEST, checked
from cloister.errors import BadFileError, UsageError
from cloister.files import open_file

VARIABLE, CREDENTIAL = "CLOISTER_CA_PASSPHRASE_FILE", "ca-passphrase"
Unlock = Callable[[], bytes]
WAYS = (
    f"name a file that holds it (--ca-passphrase-file, ${VARIABLE}), give the service a systemd "
    f"credential ({CREDENTIAL}), or run the command at a terminal"
)


def passphrase_file(named: Path | None = None) -> Path | None:
    """The file with the passphrase; None: no file is named."""
    if named is not None:
        return named
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, CREDENTIAL) if folder else None
    return path if path is not None and path.exists() else None


def unlock(named: Path | None = None, ask: bool = True) -> bytes:
    """Returns the passphrase of an existing key.

    Args:
        named: A file that holds it.
        ask: Whether to ask at the terminal.

    Raises:
        UsageError: There is no passphrase.
        BadFileError: The file cannot be read, or everybody can read it.
    """
    path = passphrase_file(named)
    if path is not None:
        return _read(path)
    if ask and sys.stdin.isatty():
        return checked(_typed("Passphrase of the authority's key: "))
    raise UsageError(f"the authority's key is encrypted and no passphrase was given; {WAYS}")


def new_passphrase(named: Path | None = None) -> bytes:
    """Returns a new passphrase for a key to encrypt; at the terminal it is typed twice.

    Raises:
        UsageError: There is no passphrase, or the two differ.
        BadFileError: The file cannot be read, or everybody can read it.
    """
    path = passphrase_file(named)
    if path is not None:
        return _read(path)
    if not sys.stdin.isatty():
        raise UsageError(f"no passphrase was given to encrypt the authority's key; {WAYS}")
    first = checked(_typed("New passphrase of the authority's key: "))
    if first != checked(_typed("The same again: ")):
        raise UsageError("the two passphrases differ; nothing was changed")
    return first


def _typed(words: str) -> bytes:
    try:
        return getpass.getpass(words).encode()
    except EOFError as error:
        raise UsageError("no passphrase was typed; nothing was changed") from error


def _read(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(LONGEST + 3)
    except OSError as error:
        raise BadFileError(
            f"{path}: the passphrase cannot be read ({error.strerror}); {WAYS}"
        ) from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise BadFileError(
            f"{path}: holds the passphrase, and every user of this machine can read or write it; "
            f"chmod 600 {path}, and change the passphrase if others may have read it"
        )
    return checked(content)
