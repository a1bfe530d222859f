"""Encrypts the values of a store under a key from a separate file.

Each value is encrypted with ChaCha20-Poly1305 (RFC 8439) and a random nonce of 96 bits. Among 2^32
values two nonces are equal with probability 2^-33, and a store has a few million values at most.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from cloister.errors import BadFileError
from cloister.files import bad_file, open_file, write_whole
from cloister.owner_only import FILE, rights_of_others

_KEY, _NONCE = 32, 12


class Seal:
    """Encrypts and decrypts values under one key.

    Args:
        key: 32 bytes; None: values are stored in clear.
    """

    def __init__(self, key: bytes | None) -> None:
        self._box = None if key is None else ChaCha20Poly1305(key)

    def close(self, value: bytes, place: str) -> bytes:
        """Encrypts a value for one place in the store.

        Args:
            value: Any bytes.
            place: The place's name. It is authenticated, so that a value that somebody moved to
                another row does not decrypt.
        """
        if self._box is None:
            return value
        nonce = os.urandom(_NONCE)
        return nonce + self._box.encrypt(nonce, value, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypts a value that `close` encrypted.

        Raises:
            ValueError: It was encrypted under another key or for another place, or was changed.
        """
        if self._box is None:
            return sealed
        try:
            return self._box.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise ValueError("wrong key, or the value was changed") from error


def key_in(file: Path, *, make: bool) -> bytes:
    """Reads a key file: 64 hexadecimal digits.

    Args:
        file: Its path.
        make: Whether to create a missing file, which only its owner may read.

    Raises:
        BadFileError: It cannot be read, other users may read it, or it does not hold a key.
    """
    try:
        if make and not os.path.lexists(file):
            write_whole(file, secrets.token_bytes(_KEY).hex().encode() + b"\n", FILE)
        if rights := rights_of_others(file):
            raise BadFileError(f"{file}: other users may {rights} this key; run chmod 600 {file}")
        with open_file(file) as opened:
            text = opened.read(2 * _KEY + 3)
    except OSError as error:
        raise bad_file(error, "read") from error
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise BadFileError(
            f"{file}: not a feedback key (64 hexadecimal digits); give the store's key file"
        )
    return key
