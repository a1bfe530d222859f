"""Laws that a mechanism's sampler and noise must follow, and how far samples may stray from them.

Each check states a figure and the limits between which it lies with probability 1 − LEVEL where the
law holds. A figure outside refutes the law; one inside proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Chance that a check of a sound mechanism fails: with a dozen checks a run, one run in 80,000.
LEVEL = 1e-6


@dataclass(frozen=True, kw_only=True)
class Check:
    """One law put to the test.

    Attributes:
        name: Of the check.
        law: What must hold, in words.
        figure: What was measured.
        low: The least that the law allows.
        high: The most.
    """

    name: str
    law: str
    figure: float
    low: float
    high: float

    @property
    def refuted(self) -> bool:
        """Whether the figure lies outside; a figure that is no number does."""
        return not self.low <= self.figure <= self.high


def noise_checks(releases: Sequence[Floats], deviation: float) -> list[Check]:
    """Checks releases of nothing but noise against independent N(0, deviation²).

    Args:
        releases: One array of coordinates for each step, all of one length.
        deviation: σ·C of the plan.
    """
    from scipy import stats

    steps = [np.asarray(release, dtype=np.float64) / deviation for release in releases]
    every = np.concatenate(steps)
    count = len(every)
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], count)
    pairs = [
        _correlation(one, other) * math.sqrt(len(one))
        for i, one in enumerate(steps)
        for other in steps[:i]
    ]
    neighbours = _correlation(every[:-1], every[1:]) * math.sqrt(count - 1)
    kurtosis = float(stats.kurtosis(every)) if every.std() > 0 else math.nan
    return [
        Check(
            name="noise scale",
            law="root of the mean square over σ·C (χ²)",
            figure=float(np.sqrt(np.square(every).mean())),
            low=math.sqrt(low / count),
            high=math.sqrt(high / count),
        ),
        Check(
            name="noise shape",
            law="p-value of Kolmogorov-Smirnov against a Gaussian",
            figure=float(stats.kstest(every, "norm").pvalue),
            low=LEVEL,
            high=1.0,
        ),
        _normal("noise tails", "excess kurtosis, in its deviations",
                kurtosis / math.sqrt(24 / count), 1),
        _normal("noise across coordinates", "correlation of neighbours, in its deviations",
                neighbours, 1),
        _normal("noise across steps", "largest correlation of two steps, in its deviations",
                max(pairs, key=abs, default=0.0), max(len(pairs), 1)),
    ]  # fmt: skip


def sampler_checks(drawn: NDArray[np.bool_], rate: float) -> list[Check]:
    """Checks batches against Poisson sampling.

    Args:
        drawn: Whether each unit is in each batch, [T, U].
        rate: The plan's.
    """
    from scipy import stats

    batches, units = drawn.shape
    counts = drawn.sum(axis=0)
    rates = min(float(stats.binomtest(int(c), batches, rate).pvalue) for c in counts)
    together = drawn.T.astype(np.int64) @ drawn.astype(np.int64)
    upper = together[np.triu_indices(units, 1)]
    pairs = min(float(stats.binomtest(int(c), batches, rate**2).pvalue) for c in upper)
    sizes = drawn.sum(axis=1)
    variance = units * rate * (1 - rate)
    spread = (float(sizes.var(ddof=1)) / variance - 1) / math.sqrt(2 / (batches - 1))
    both = float((drawn[1:] & drawn[:-1]).mean())
    chance = rate**2
    repeats = (both - chance) / math.sqrt(chance * (1 - chance) / ((batches - 1) * units))
    return [
        Check(name="sampling rate", law="smallest p-value of a unit's count (binomial)",
              figure=rates, low=LEVEL / units, high=1.0),
        Check(name="sampling of pairs", law="smallest p-value of two units' count together",
              figure=pairs, low=LEVEL / len(upper), high=1.0),
        _normal("batch sizes", "their variance over the law's, in its deviations", spread, 1),
        _normal("sampling across steps", "units in two batches running, in its deviations",
                repeats, 1),
    ]  # fmt: skip


def _correlation(one: Floats, other: Floats) -> float:
    """Pearson's; no number where one does not vary, which refutes."""
    if one.std() == 0 or other.std() == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def _normal(name: str, law: str, figure: float, looks: int) -> Check:
    """A figure that is standard normal where the law holds, the largest of so many looks."""
    from scipy import stats

    limit = float(stats.norm.isf(LEVEL / 2 / looks))
    return Check(name=name, law=law, figure=figure, low=-limit, high=limit)
