"""Where private randomness comes from.

Math:
    Uniforms lie on the grid of multiples of 2⁻⁵³ in [0, 1). Normals come from them by the
    Box-Muller transform in float64 (Box & Muller 1958), with a radius of 106 bits: they reach 12.1.
    With 53 bits they would end at 8.6, which little noise (σ = 0.2) turns into a δ of 10⁻⁴ a step,
    as one unit moves such a sum by five standard deviations.
"""

from __future__ import annotations

import math
import os
from typing import NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Uniforms = NDArray[np.float64]

# Uniforms are multiples of one over this: as fine as float64 holds them near 1.
UNIFORM_GRID = 2.0**53


class Entropy(Protocol):
    """A source of independent random numbers."""

    @property
    def is_private(self) -> bool:
        """Whether nobody can predict its numbers; a release drawn otherwise has ε = ∞."""

    def uniform(self, count: int) -> Uniforms:
        """Independent uniforms in [0, 1), float64 [count]."""

    def normal(self, count: int) -> Uniforms:
        """Independent standard normals, float64 [count]."""


class OsEntropy:
    """AES-256 in counter mode under a key drawn from the operating system for each call.

    Guarantees:
        No seed exists that could be known, stored or sent. Each call has its own key, so copies of
        this object, in forked processes too, never give the same numbers. It cannot be pickled.
    """

    is_private = True

    def uniform(self, count: int) -> Uniforms:
        """Independent uniforms in [0, 1) on the grid of 2⁻⁵³, float64 [count]."""
        cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16)))
        stream = cipher.encryptor().update(bytes(8 * count))
        words = np.frombuffer(stream, dtype=np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) / UNIFORM_GRID

    def normal(self, count: int) -> Uniforms:
        """Independent standard normals, float64 [count]."""
        pairs = (count + 1) // 2
        coarse, fine, turn = self.uniform(3 * pairs).reshape(3, pairs)
        # In (0, 1], so that its logarithm is finite.
        radius = np.sqrt(-2.0 * np.log(coarse + (fine + 1 / UNIFORM_GRID) / UNIFORM_GRID))
        angle = 2.0 * math.pi * turn
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def __reduce__(self) -> NoReturn:
        raise TypeError("private entropy is never serialised; make a new OsEntropy instead")


class SeededEntropy:
    """Reproducible numbers, for runs without privacy and for tests; its releases have ε = ∞."""

    is_private = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def uniform(self, count: int) -> Uniforms:
        """Uniforms in [0, 1), float64 [count]."""
        return self._generator.random(count)

    def normal(self, count: int) -> Uniforms:
        """Standard normals, float64 [count]."""
        return self._generator.standard_normal(count)
