"""Masks from 256-bit seeds: AES-256 in counter mode, so every bit of the seed matters.

Flower's SecAgg+ reduces a seed to 32 bits for a Mersenne twister; one core tries 2³² in half a
month.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger]

SEED_BYTES = 32


def word(bits: int) -> np.dtype[np.unsignedinteger]:
    """Returns the NumPy type of a value modulo 2^bits: unsigned, little-endian as on the wire."""
    return np.dtype(f"<u{bits // 8}")


def mask(seed: bytes, count: int, bits: int) -> Words:
    """Expands a seed into a mask.

    Args:
        seed: 32 bytes. Each seed makes one mask only: two masks of one seed cancel.
        count: Number of values.
        bits: Bits of each value, 16 or 32.

    Returns:
        Values [count] that are indistinguishable from uniform ones modulo 2^bits without the seed.
    """
    assert len(seed) == SEED_BYTES
    # A counter from 0 is safe, because each seed is a key that makes one stream only.
    cipher = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16)))
    stream = cipher.encryptor().update(bytes(count * bits // 8))
    return np.frombuffer(stream, dtype=word(bits))


def derived(secret: bytes, context: bytes) -> bytes:
    """Derives the seed for one use from a shared secret (HKDF, RFC 5869, with SHA-256).

    Args:
        secret: The shared secret of two sites (X25519), or a secret of one site.
        context: Names the use; different bytes give independent seeds.
    """
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=context).derive(secret)
