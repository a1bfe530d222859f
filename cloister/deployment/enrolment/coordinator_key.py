"""The coordinator's key, which signs every question to a site. Its public half is a text.

Ed25519 (RFC 8032). It is in the coordinator's folder, readable by its owner only, and signs
automatically; the authority's key, which every site pins, is not needed for a round. A site gets
the public half in the welcome document, which the authority signed, or by any other means if its
fingerprint is compared over another channel.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.deployment.enrolment.authority import grouped
from cloister.errors import BadFileError
from cloister.files import write_whole
from cloister.ledger.signing import pem_of, public_hex, read_pem

# 32 bytes in hex.
_PUBLIC = re.compile("[0-9a-f]{64}")
# Larger than any file that holds a key as one line.
LARGEST = 1024


def create_coordinator_key(path: Path) -> Ed25519PrivateKey:
    """Makes a key and writes it, mode 0600; an existing one is overwritten (renewal).

    Raises:
        BadFileError: It cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        write_whole(path, pem_of(key), mode=0o600)
    except OSError as error:
        raise BadFileError(f"{path}: the coordinator's key cannot be written ({error})") from error
    return key


def load_coordinator_key(path: Path) -> Ed25519PrivateKey:
    """Reads the coordinator's signing key.

    Raises:
        BadFileError: The file is missing, or is not an Ed25519 key.
    """
    try:
        return read_pem(path)
    except FileNotFoundError as error:
        raise BadFileError(
            f"{path}: missing, but sites answer only questions that are signed by it; restore it "
            "from the coordinator's backup, or let cloister server start make one, and every site "
            "trust that (cloister site trust)"
        ) from error
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"{path}: the coordinator's key cannot be read ({error}); restore it from the "
            "coordinator's backup"
        ) from error


def is_public_key(text: str) -> bool:
    """Whether a text is a public key: 64 hex digits in lower case."""
    return _PUBLIC.fullmatch(text) is not None


def public_key_of(key: Ed25519PrivateKey) -> str:
    """Returns the public key as 64 hex digits."""
    return public_hex(key)


def key_fingerprint(public_key: str) -> str:
    """SHA-256 of a public key's 32 bytes, in groups to be read aloud."""
    return grouped(hashlib.sha256(bytes.fromhex(public_key)).hexdigest())


def read_public_key(given: str) -> str:
    """Reads a public key from the command line: the key itself, or a file with nothing else.

    Raises:
        BadFileError: It is neither a key nor such a file.
    """
    if is_public_key(given):
        return given
    try:
        with Path(given).open("rb") as file:
            text = file.read(LARGEST).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise _no_key(given) from error
    if not is_public_key(text):
        raise _no_key(given)
    return text


def _no_key(given: str) -> BadFileError:
    return BadFileError(
        f"{given[:64]!r}: not a coordinator's public key; give its 64 hex digits, or the file that "
        "cloister server key --out wrote"
    )
