"""Random numbers for sampling and noise: from the operating system, or seeded without privacy.

Math:
    Words are the key stream of AES-256 in counter mode (NIST SP 800-38A), 64 bits each. Uniforms
    are multiples of 2⁻⁵³ in [0, 1). Gaussian noise is made of words by integers alone
    (`privacy.gaussian_table`): no floats' spacing leaves holes around zero, and its tails reach 13
    deviations.
"""

from __future__ import annotations

import os
from typing import NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from cloister.privacy.gaussian_table import Integers, Words, table_of

Uniforms = NDArray[np.float64]

# Uniforms are multiples of one over this: as fine as float64 holds them near 1.
UNIFORM_GRID = 2.0**53
# AES' block in words: OpenSSL needs buffers with room for one block more.
_AES_WORDS = 2
# Bytes that are encrypted at a time; they stay in the second-level cache.
_ZEROS = memoryview(bytes(2**18))


class Entropy(Protocol):
    """A source of independent random numbers."""

    @property
    def is_private(self) -> bool:
        """Whether its numbers cannot be predicted; a release by another source has ε = ∞."""

    def uniform(self, count: int) -> Uniforms:
        """Draws independent uniforms in [0, 1), float64 [count]."""

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws independent discrete Gaussians, int64 [count]; the deviation is in steps of 1."""


class KeyStream:
    """AES-256 in counter mode under a key of its own, drawn from the operating system.

    Guarantees:
        Each word is given once. A key gives 2¹²⁸ blocks before its counter repeats.
    """

    def __init__(self) -> None:
        self._cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> Words:
        """Returns the next 64-bit words of the stream, uint64 [count]."""
        taken = np.empty(count + _AES_WORDS, dtype=np.uint64)
        room = memoryview(taken.data).cast("B")
        for start in range(0, 8 * count, len(_ZEROS)):
            zeros = _ZEROS[: 8 * count - start]
            self._cipher.update_into(zeros, room[start:])
        return taken[:count]


class OsEntropy:
    """AES-256 in counter mode under a key drawn from the operating system for each call.

    Guarantees:
        No seed exists that could be known, stored or sent. Each call has its own key, so copies of
        this object, in forked processes too, never give the same numbers. It cannot be pickled.
    """

    is_private = True

    def uniform(self, count: int) -> Uniforms:
        """Draws independent uniforms in [0, 1), multiples of 2⁻⁵³, float64 [count]."""
        words = KeyStream().words(count)
        return (words >> np.uint64(11)).astype(np.float64) / UNIFORM_GRID

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws independent discrete Gaussians, int64 [count], exactly (`privacy.gaussian_table`).

        Args:
            deviation: Standard deviation in steps of 1; above 0 and below 2⁵².
            count: How many.
        """
        return table_of(deviation).draw(count, KeyStream().words)

    def __reduce__(self) -> NoReturn:
        raise TypeError("private entropy is never serialised; make a new OsEntropy instead")


class SeededEntropy:
    """Reproducible numbers, for runs without privacy and for tests; its releases have ε = ∞."""

    is_private = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def uniform(self, count: int) -> Uniforms:
        """Draws uniforms in [0, 1), float64 [count]."""
        return self._generator.random(count)

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws normals of this deviation, rounded to integers, int64 [count]."""
        return np.rint(self._generator.standard_normal(count) * deviation).astype(np.int64)
