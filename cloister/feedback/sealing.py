"""Encrypts what a store keeps, under a key in a file of its own.

ChaCha20-Poly1305 (RFC 8439) with a random nonce of 96 bits each: of 2^32 values two nonces are
alike with probability 2^-33, and a store has at most some millions.
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
    """Seals and opens values under one key.

    Args:
        key: 32 bytes; None: values are kept as they are.
    """

    def __init__(self, key: bytes | None) -> None:
        self._box = None if key is None else ChaCha20Poly1305(key)

    def close(self, value: bytes, place: str) -> bytes:
        """Seals a value.

        Args:
            value: Any bytes.
            place: Where it is kept; opened at another place, it does not open.
        """
        if self._box is None:
            return value
        nonce = os.urandom(_NONCE)
        return nonce + self._box.encrypt(nonce, value, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Opens what `close` gave.

        Raises:
            ValueError: It was sealed under another key or at another place, or changed since.
        """
        if self._box is None:
            return sealed
        try:
            return self._box.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise ValueError("another key, or changed since") from error


def key_in(file: Path, *, make: bool) -> bytes:
    """Reads a key file: 64 hexadecimal digits.

    Args:
        file: Its path.
        make: Whether a missing one is made, for its owner alone.

    Raises:
        BadFileError: It cannot be read, others may read it, or it is no key.
    """
    try:
        if make and not os.path.lexists(file):
            write_whole(file, secrets.token_bytes(_KEY).hex().encode() + b"\n", FILE)
        if rights := rights_of_others(file):
            raise BadFileError(f"{file}: others may {rights} this key; chmod 600 {file}")
        with open_file(file) as opened:
            text = opened.read(2 * _KEY + 3)
    except OSError as error:
        raise bad_file(error, "read") from error
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise BadFileError(f"{file}: no key of feedback (64 hexadecimal digits); give another file")
    return key
