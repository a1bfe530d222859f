"""Noise that an audit writes down as it is drawn, so that what leaves is known bit for bit.

Statistical tests of a few dozen values miss noise that is a little too small, that is cut, or whose
sum over all values is zero. What leaves a site must be its exact sum plus what was drawn, and that
must have been drawn once, with the right deviation, for every value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cloister.audit.statistics import Floats
from cloister.client.site import Site
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.gaussian_table import Integers
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SMOOTHING

# float64's rounding in a few operations.
ROUNDING = 1e-12


class RecordedEntropy(OsEntropy):
    """The operating system's randomness, whose Gaussian draws are kept with their deviations."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, Integers]] = []

    def gaussian(self, deviation: float, count: int) -> Integers:
        """Draws as `OsEntropy` does, and keeps a copy."""
        values = super().gaussian(deviation, count)
        self.drawn.append((deviation, values.copy()))
        return values


@dataclass(frozen=True)
class RecordedSite(Site):
    """A site whose noise is written down.

    Attributes:
        recorded: Its randomness.
    """

    recorded: RecordedEntropy = field(default_factory=RecordedEntropy, compare=False)

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Returns the recorded randomness."""
        return self.recorded


def recorded_sites() -> tuple[Callable[..., Site], list[RecordedEntropy]]:
    """Returns a function that makes sites from their fields, and what each of them draws."""
    recorded: list[RecordedEntropy] = []

    def make(**fields: Any) -> Site:
        site = RecordedSite(**fields)
        recorded.append(site.recorded)
        return site

    return make, recorded


def is_sum_with_noise(
    sent: Floats, exact: ClippedSum, noise_multiplier: float, recorded: RecordedEntropy
) -> bool:
    """Whether a site sent an exact sum with noise of its own that was drawn for it, and no more.

    Args:
        sent: What left, [D].
        exact: The sum of the site's units, of one tensor.
        noise_multiplier: The plan's.
        recorded: What was drawn for it.
    """
    if len(recorded.drawn) != 1:
        return False
    ((deviation, drawn),) = recorded.drawn
    right = math.hypot(noise_multiplier * exact.bound / exact.grid, math.sqrt(SMOOTHING))
    total = exact.tensors[0].cpu().numpy() + drawn
    whole = np.array_equal((total * exact.grid).astype(np.float32), sent.astype(np.float32))
    return whole and math.isclose(deviation, right, rel_tol=ROUNDING)


def is_sum_with_shares(left: Floats, share: float, recorded: Sequence[RecordedEntropy]) -> bool:
    """Whether all noise in a sum over sites is one share of each, and no more.

    Args:
        left: The sum in steps of its grid, less the exact one, [D].
        share: The plan's deviation of a share, in steps.
        recorded: What each site drew.
    """
    if any([deviation for deviation, _ in one.drawn] != [share] for one in recorded):
        return False
    return np.array_equal(left, np.sum([one.drawn[0][1] for one in recorded], axis=0))
