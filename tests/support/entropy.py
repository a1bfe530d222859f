"""Sources of randomness for tests: any noise distribution, or draws that come again in each run."""

from collections.abc import Callable

import numpy as np
import pytest

from cloister.client.site import Site
from cloister.privacy.entropy import OsEntropy, SeededEntropy
from cloister.privacy.plan import Plan
from cloister.seeds import child_generator

Array = np.ndarray

# Steps of a normal's deviation: as fine as a float64 near 1 can show.
FINE = 2.0**51


def normals(count: int) -> Array:
    """Standard normals from production's generator."""
    return OsEntropy().gaussian(FINE, count) / FINE


def seeded(seed: int = 0) -> SeededEntropy:
    """The same draws in every run: what an attack finds in them is not left to luck."""
    return SeededEntropy(np.random.default_rng(seed))


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


class Repeated(SeededEntropy):
    """Seeded numbers that are charged and stated as production's are."""

    is_private = True


def repeat_rounds(patch: pytest.MonkeyPatch) -> None:
    """Has a study's sites draw the same records and noise whenever a test runs.

    For tests that compare the scores of models: with fresh noise an inequality fails now and then.
    """

    def entropy(site: Site, plan: Plan, number: int) -> Repeated:
        return Repeated(child_generator(site.seed, "site", site.name, "round", number))

    patch.setattr(Site, "entropy", entropy)
