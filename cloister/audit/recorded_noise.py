"""Noise that an audit writes down as it is drawn, so that what leaves is known bit for bit.

Statistical tests of a few dozen values miss noise that is a little too small, that is cut, or whose
sum over all values is zero. What leaves a site must be its exact sum plus what was drawn, and that
must have been drawn once, with the right deviation, for every value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cloister.audit.statistics import Floats
from cloister.client.site import Site
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.gaussian_table import Integers
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SMOOTHING

# float64's rounding in a few operations.
ROUNDING = 1e-12


class RecordedEntropy:
    """What a site draws from its own randomness: every Gaussian draw with its deviation.

    Attributes:
        drawn: The draws so far.
    """

    def __init__(self) -> None:
        self.drawn: list[tuple[float, Integers]] = []

    def of(self, source: Entropy) -> Entropy:
        """Returns a source that draws from another one, and keeps a copy."""
        return _Copying(source, self.drawn)


class _Copying:
    def __init__(self, source: Entropy, drawn: list[tuple[float, Integers]]) -> None:
        self._source, self._drawn = source, drawn

    @property
    def is_private(self) -> bool:
        return self._source.is_private

    def uniform(self, count: int) -> Floats:
        return self._source.uniform(count)

    def gaussian(self, deviation: float, count: int) -> Integers:
        values = self._source.gaussian(deviation, count)
        self._drawn.append((deviation, values.copy()))
        return values


@dataclass(frozen=True)
class RecordedSite(Site):
    """A site whose noise is written down.

    Attributes:
        recorded: What it drew.
    """

    recorded: RecordedEntropy = field(default_factory=RecordedEntropy, compare=False)

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Returns the site's randomness, which is written down."""
        return self.recorded.of(super().entropy(plan, round_number))


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


def shares_drawn(share: float, recorded: Sequence[RecordedEntropy], rounds: int) -> list[Floats]:
    """Returns the sum of all sites' shares in each round, if each drew one for each.

    Args:
        share: The plan's deviation of a share, in steps.
        recorded: What each site drew.
        rounds: Number of rounds.

    Returns:
        One row for each round, [D]; nothing if a site drew another number of shares, or of another
        deviation.
    """
    right = [share] * rounds
    if not recorded or any([deviation for deviation, _ in one.drawn] != right for one in recorded):
        return []
    return [np.sum([one.drawn[at][1] for one in recorded], axis=0) for at in range(rounds)]
