"""Masks from 256-bit seeds: AES-256 in counter mode, so every bit of the seed matters.

Flower's SecAgg+ folds a seed to 32 bits for a Mersenne twister; 2³² tries are half a month on one
core.
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
    """The type of a value modulo 2^bits; little-endian, as it travels."""
    return np.dtype(f"<u{bits // 8}")


def mask(seed: bytes, count: int, bits: int) -> Words:
    """The mask of a seed, uniform modulo 2^bits [count].

    Args:
        seed: 32 bytes, of one use: no other mask may come from it.
        count: Values.
        bits: Of each.
    """
    assert len(seed) == SEED_BYTES
    cipher = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16)))
    stream = cipher.encryptor().update(bytes(count * bits // 8))
    return np.frombuffer(stream, dtype=word(bits))


def derived(secret: bytes, context: bytes) -> bytes:
    """A seed from a key agreement's secret, for one use (HKDF, RFC 5869, with SHA-256)."""
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=context).derive(secret)
