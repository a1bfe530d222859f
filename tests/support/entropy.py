"""Sources of randomness for tests: the operating system's uniforms with any noise distribution."""

from collections.abc import Callable

import numpy as np

from cloister.privacy.entropy import OsEntropy

Array = np.ndarray

# Steps of a normal's deviation: as fine as a float64 near 1 can show.
FINE = 2.0**51


def normals(count: int) -> Array:
    """Standard normals from production's generator."""
    return OsEntropy().gaussian(FINE, count) / FINE


class FromNormals:
    """Production's uniforms, and noise from standard normals that are rounded to the grid."""

    is_private = True

    def __init__(self, normal: Callable[[int], Array] = normals) -> None:
        self._normal = normal

    def uniform(self, count: int) -> Array:
        return OsEntropy().uniform(count)

    def normal(self, count: int) -> Array:
        return self._normal(count)

    def gaussian(self, deviation: float, count: int) -> Array:
        return np.rint(self.normal(count) * deviation).astype(np.int64)
