"""Encrypts an authority's private key with a passphrase or the content of a key file.

PKCS #8 with AES-256-CBC, as `cryptography` writes it. Its own derivation (PBKDF2, 2,048 rounds of
SHA-256) takes a third of a millisecond, too little against guessing. So the passphrase first goes
through scrypt, whose output is the passphrase of PKCS #8.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloister.errors import BadFileError, UsageError

# OWASP's first choice for scrypt (Password Storage Cheat Sheet): 128 MiB and about half a second
# for one guess.
COST, BLOCK, LANES = 2**17, 8, 1
MEMORY = 2 * 128 * COST * BLOCK  # OpenSSL's memory limit: twice what scrypt needs
# Shorter passphrases can be guessed within days even so (8 lower-case letters: 2·10¹¹ guesses);
# longer ones than OpenSSL accepts are refused, not cut.
SHORTEST, LONGEST = 12, 1023
SEALED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def seal(key: ec.EllipticCurvePrivateKey, passphrase: bytes, salt: bytes) -> bytes:
    """Encrypts a key with a passphrase, as PEM.

    Args:
        key: The key.
        passphrase: From a person, or a key file's content.
        salt: Different for every authority: its certificate's SHA-256.

    Raises:
        UsageError: The passphrase is too short or too long.
    """
    encryption = BestAvailableEncryption(_stretched(checked(passphrase), salt))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def plain(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns a key as unencrypted PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def in_pem(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, passphrase: bytes | None
) -> bytes:
    """An authority's key in PEM: encrypted with a passphrase, or unencrypted (None).

    Raises:
        UsageError: The passphrase is too short or too long.
    """
    return plain(key) if passphrase is None else seal(key, passphrase, salt_of(certificate))


def salt_of(certificate: x509.Certificate) -> bytes:
    """The salt for an authority's key."""
    return certificate.fingerprint(hashes.SHA256())


def is_sealed(pem: bytes) -> bool:
    """Whether a private key in PEM is encrypted."""
    return pem.lstrip().startswith(SEALED)


def open_sealed(pem: bytes, passphrase: bytes, salt: bytes) -> ec.EllipticCurvePrivateKey:
    """Decrypts a key that `seal` encrypted.

    Raises:
        BadFileError: The passphrase is wrong or the file is damaged, which cannot be distinguished.
        UsageError: The passphrase is too short or too long.
    """
    try:
        key = load_pem_private_key(pem, _stretched(checked(passphrase), salt))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadFileError(
            "the authority's key cannot be decrypted: the passphrase is wrong, or the file is "
            "damaged; give the right one, or restore ca.key from its backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadFileError("the authority's key is of another kind; restore ca.key from its backup")
    return key


def checked(passphrase: bytes) -> bytes:
    """A passphrase without the end of its line.

    Raises:
        UsageError: It is too short or too long.
    """
    found = passphrase.rstrip(b"\r\n")
    if not SHORTEST <= len(found) <= LONGEST:
        raise UsageError(
            f"passphrase: {len(found)} bytes given; {SHORTEST} to {LONGEST} are needed (for a key "
            "file: openssl rand -hex 32 > FILE)"
        )
    return found


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    """In hex, because OpenSSL may cut a passphrase at a zero byte."""
    made = hashlib.scrypt(passphrase, salt=salt, n=COST, r=BLOCK, p=LANES, maxmem=MEMORY, dklen=32)
    return made.hex().encode()
