"""Noise and coins that an audit writes down as they are drawn, so that what leaves is known bit for
bit, and so is who is drawn.

Statistical tests of a few dozen values miss noise that is a little too small, that is cut, or whose
sum over all values is zero. What leaves a site must be its exact sum plus what was drawn, and that
must have been drawn once, with the right deviation, for every value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cloister.audit.statistics import Floats
from cloister.client.site import Site
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import UNIFORM_GRID, Entropy
from cloister.privacy.gaussian_table import Integers
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SMOOTHING

Floats32 = NDArray[np.float32]

# float64's rounding in a few operations.
ROUNDING = 1e-12


class RecordedEntropy:
    """What a site draws from its own randomness.

    Args:
        keeps_noise: Whether Gaussian draws are kept too; those of many steps take much memory.

    Attributes:
        drawn: The Gaussian draws so far, each with its deviation.
        coins: The uniforms so far, draw by draw.
    """

    def __init__(self, *, keeps_noise: bool = True) -> None:
        self.keeps_noise = keeps_noise
        self.drawn: list[tuple[float, Integers]] = []
        self.coins: list[Floats] = []

    def of(self, source: Entropy) -> Entropy:
        """Returns a source that draws from another one, and keeps a copy."""
        return _Copying(source, self)


class _Copying:
    def __init__(self, source: Entropy, kept: RecordedEntropy) -> None:
        self._source, self._kept = source, kept

    @property
    def is_private(self) -> bool:
        return self._source.is_private

    def uniform(self, count: int) -> Floats:
        coins = self._source.uniform(count)
        self._kept.coins.append(coins.copy())
        return coins

    def gaussian(self, deviation: float, count: int) -> Integers:
        values = self._source.gaussian(deviation, count)
        if self._kept.keeps_noise:
            self._kept.drawn.append((deviation, values.copy()))
        return values


@dataclass(frozen=True)
class RecordedSite(Site):
    """A site whose coins and noise are written down.

    Attributes:
        recorded: What it drew.
    """

    recorded: RecordedEntropy = field(default_factory=RecordedEntropy, compare=False)

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Returns the site's randomness, which is written down."""
        return self.recorded.of(super().entropy(plan, round_number))


@dataclass(frozen=True)
class CoinSite(RecordedSite):
    """A site whose coins alone are written down."""

    recorded: RecordedEntropy = field(
        default_factory=partial(RecordedEntropy, keeps_noise=False), compare=False
    )


def sum_with_noise(
    exact: ClippedSum, noise_multiplier: float, recorded: RecordedEntropy
) -> Floats32 | None:
    """Returns an exact sum with the noise of the site's own that was drawn for it.

    Args:
        exact: The sum of the site's units, of one tensor.
        noise_multiplier: The plan's.
        recorded: What was drawn for it.

    Returns:
        What may leave, [D]; None: noise was not drawn once, with the plan's deviation.
    """
    if len(recorded.drawn) != 1:
        return None
    ((deviation, drawn),) = recorded.drawn
    right = math.hypot(noise_multiplier * exact.bound / exact.grid, math.sqrt(SMOOTHING))
    if not math.isclose(deviation, right, rel_tol=ROUNDING):
        return None
    total: Floats32 = ((exact.tensors[0].cpu().numpy() + drawn) * exact.grid).astype(np.float32)
    return total


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


def repeated_coins(recorded: Sequence[RecordedEntropy]) -> int:
    """Counts the coins that were drawn before, at the same site or another one.

    A coin is a multiple of 2⁻⁵³: of 10,000 independent ones two are equal with probability 6·10⁻⁹.
    """
    coins = np.concatenate([np.zeros(0), *(draw for one in recorded for draw in one.coins)])
    return len(coins) - len(np.unique(coins))


def drawn_by(recorded: RecordedEntropy, sample_rate: float) -> list[int]:
    """Returns the units that a site's coins draw at a rate, step after step."""
    realised = math.floor(sample_rate * UNIFORM_GRID) / UNIFORM_GRID
    return [int(unit) for coins in recorded.coins for unit in np.flatnonzero(coins < realised)]
