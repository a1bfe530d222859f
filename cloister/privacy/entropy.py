"""Where private randomness comes from.

Math:
    Uniforms lie on the grid of multiples of 2⁻⁵³ in [0, 1). Normals come from them by the
    Box-Muller transform in float64 (Box & Muller 1958): radius² = −2 ln U at a uniform angle.
    U must be fine at both of its ends. Near 0 it gives the tail: with 53 bits normals would end at
    8.6, which little noise (σ = 0.2) turns into a δ of 10⁻⁴ a step, as one unit moves such a sum by
    five standard deviations. Near 1 it gives the radii around 0, radius² ≈ 2 (1 − U): there the
    doubles are 2⁻⁵³ apart, so radii below 10⁻⁸ √k would be a few circles with nothing between, and
    the grid to which noise is rounded is finer than that. So the distance v to the nearer end is
    drawn, on multiples of 2⁻¹⁰⁷ in (0, ½], and a bit of its own says which end: the radius is
    √(−2 ln v) or √(−2 ln(1 − v)), the latter by log1p. Radii reach from 1.1·10⁻¹⁶ to 12.1, each
    with the 53 bits that a double has.
"""

from __future__ import annotations

import math
import os
from typing import NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Uniforms = NDArray[np.float64]
Words = NDArray[np.uint64]

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
        return _unit(_words(count))

    def normal(self, count: int) -> Uniforms:
        """Independent standard normals, float64 [count]."""
        return box_muller(_words(3 * ((count + 1) // 2)))[:count]

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


def box_muller(words: Words) -> Uniforms:
    """Independent standard normals from independent uniform words.

    Args:
        words: uint64 [3 · pairs]: coarse and fine bits of the radius, then angles; of an angle's
            word the lowest bit, which the angle itself does not use, says which end of (0, 1) the
            radius is measured from.

    Returns:
        Float64 [2 · pairs]; values i and pairs + i share a radius.

    Guarantees:
        A pair's radius R has P(R < r) = 1 − exp(−r²/2) from r = 10⁻¹⁵ on, both tails included; no
        radius above it is left out by more than a double's own spacing.
    """
    coarse, fine, turn = words.reshape(3, -1)
    # In (0, 1/2], so that its logarithm is finite; the sum keeps the fine bits where coarse is 0.
    distance = (_unit(coarse) + (_unit(fine) + 1 / UNIFORM_GRID) / UNIFORM_GRID) / 2
    from_zero = (turn & np.uint64(1)).astype(np.bool_)
    logarithm = np.where(from_zero, np.log(distance), np.log1p(-distance))
    radius = np.sqrt(-2.0 * logarithm)
    angle = 2.0 * math.pi * _unit(turn)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def _unit(words: Words) -> Uniforms:
    """The upper 53 bits of each word as a uniform in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) / UNIFORM_GRID


def _words(count: int) -> Words:
    """Uniform words, uint64 [count], under a key that is used for nothing else."""
    cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16)))
    return np.frombuffer(cipher.encryptor().update(bytes(8 * count)), dtype=np.uint64)
