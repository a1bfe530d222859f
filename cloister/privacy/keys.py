"""A site's signing key: made at the site, readable by its owner alone, never sent."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloister.errors import LedgerError


def create_key(path: Path) -> Ed25519PrivateKey:
    """Makes a key and writes it, mode 0600.

    Raises:
        LedgerError: A file is there already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerError(f"{path}: the site's key cannot be written ({error.strerror})") from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Reads a key.

    Raises:
        LedgerError: It is missing or no Ed25519 key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise LedgerError(
            f"{path}: the site's key cannot be read ({error}); restore it from its backup: a "
            "ledger is only written under the key that began it"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(f"{path}: no Ed25519 key")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key's 32 bytes in hex."""
    return key.public_key().public_bytes_raw().hex()


def is_signed(body: bytes, signature: bytes, public_key: str) -> bool:
    """Whether a signature is the key's on these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True
