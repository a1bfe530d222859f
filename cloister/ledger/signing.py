"""A site's signing key: made at the site, readable by its owner only, never sent."""

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

# y-coordinates of the points of order 1, 2, 4 and 8, in every encoding (the tests compute them):
# under such a "public key" one signature is valid for any text, without a private key.
SMALL_ORDER = frozenset(
    {
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    }
)


def pem_of(key: Ed25519PrivateKey) -> bytes:
    """A private key as the bytes of its file: PKCS #8 in PEM, without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_pem(path: Path) -> Ed25519PrivateKey:
    """Reads a private key from its file.

    Raises:
        OSError: It cannot be read.
        ValueError: The file has no Ed25519 key, or one with a passphrase.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:  # cryptography raises it for a key with a passphrase
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key


def create_key(path: Path) -> Ed25519PrivateKey:
    """Makes a key and writes it, mode 0600.

    Raises:
        LedgerError: The file exists already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem_of(key))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerError(f"{path}: the key cannot be written ({error.strerror})") from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Reads a site's signing key.

    Raises:
        LedgerError: The file is missing, or is not an Ed25519 key.
    """
    try:
        return read_pem(path)
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{path}: the site's key cannot be read ({error}); restore it from its backup: a "
            "ledger can only be written with its own key"
        ) from error


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key's 32 bytes in hex."""
    return key.public_key().public_bytes_raw().hex()


def is_signed(body: bytes, signature: bytes, public_key: str) -> bool:
    """Whether a signature of these bytes is the key's; always false for a key of small order."""
    try:
        point = bytes.fromhex(public_key)
        without_sign = point[:-1] + bytes([point[-1] & 0x7F]) if point else point
        if without_sign.hex() in SMALL_ORDER:
            return False
        Ed25519PublicKey.from_public_bytes(point).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True
