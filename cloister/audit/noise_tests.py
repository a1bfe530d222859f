"""Tests that noise is independent N(0, deviation²) in every coordinate of every release.

Each function `…_p` returns p-values that are exact, or upper bounds on them: from the distribution
itself (χ², the angle of two Gaussian vectors), or by Chernoff bounds. None is a normal
approximation, so levels of 10⁻⁷ are valid.

Math:
    A Gaussian x becomes a uniform u = Φ(x). For v = cos(π j u), E exp(t v) = I₀(t) ≤ exp(t²/4): a
    sum of n of them reaches s with probability at most exp(−s²/n) (Neyman's smooth test, 1937,
    with cosines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cloister.audit.repeat_tests import lag_p, repeat_checks
from cloister.audit.statistics import Check, Floats, p_check, smallest, two_sided

# Number of cosines that test a tensor's distribution: the 12th still shows bumps a tenth of the
# range wide.
COSINES = 12
# Most blocks that are compared in pairs, and fewest values of a block. In shorter blocks a chance
# match among so many pairs is not rarer than 10⁻⁷; `repeat_tests` covers them value by value.
MOST_BLOCKS, BLOCK_VALUES = 1200, 24


@dataclass(frozen=True)
class Releases:
    """Releases of nothing but noise.

    Attributes:
        values: One row per release, [T, d].
        parts: Values of each tensor, in order; they sum to d.
        deviation: The right standard deviation of each value.
        grid: The values must be integer multiples of it; None: no grid is promised.
        is_float32: Whether they were rounded to float32; else they are exact multiples.
    """

    values: Floats
    parts: tuple[int, ...]
    deviation: float
    grid: float | None = None
    is_float32: bool = True

    @property
    def standard(self) -> Floats:
        """Returns the releases divided by the noise's standard deviation, [T, d]."""
        return self.values / self.deviation

    def tensors(self) -> list[Floats]:
        """The standard values of each tensor, [T, d_k]."""
        ends = np.cumsum((0, *self.parts))
        rows = self.standard
        return [rows[:, a:b] for a, b in pairwise(ends)]


def noise_checks(releases: Releases) -> list[Check]:
    """All tests of noise, as one check each."""
    rows, tensors = releases.standard, releases.tensors()
    return [
        _scale(rows),
        p_check(
            "noise of each tensor",
            "mean square of each tensor, over all steps and in each (χ²)",
            tensor_p(tensors),
        ),
        p_check(
            "noise of each value",
            "mean square of each value over the steps (χ²), and their spread",
            value_p(rows),
        ),
        p_check(
            "noise of each step", "mean square of each step (χ²), and their spread", value_p(rows.T)
        ),
        p_check(
            "noise shape",
            "Kolmogorov-Smirnov over all, cosines of each tensor, against a Gaussian",
            shape_p(rows, tensors),
        ),
        p_check(
            "noise tails",
            "largest value of each tensor, excess kurtosis of all",
            tail_p(rows, tensors),
        ),
        p_check(
            "noise across values",
            "correlation at every lag, of values and of their sizes",
            lag_p(rows),
        ),
        p_check("noise across steps", "angles between steps, and their spread", angle_p(rows)),
        p_check(
            "noise across tensors",
            "angles between tensors of one size in all steps, one of them also reversed",
            block_p(tensors),
        ),
        *repeat_checks(releases.values, releases.deviation, releases.grid, releases.is_float32),
    ]


def noise_check(name: str, law: str, releases: Releases) -> Check:
    """All tests of noise that need no grid, in one check."""
    rows, tensors = releases.standard, releases.tensors()
    groups = [
        tensor_p([rows]),
        tensor_p(tensors),
        value_p(rows),
        value_p(rows.T),
        shape_p(rows, tensors),
        lag_p(rows),
        angle_p(rows),
        block_p(tensors),
    ]
    return p_check(name, law, [smallest(np.array(group)) for group in groups])


def _scale(rows: Floats) -> Check:
    """Checks the noise's size over the right one, the figure that people look for first."""
    from scipy import stats

    from cloister.audit.statistics import LEVEL

    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], rows.size) / rows.size
    return Check(
        name="noise scale",
        law="root of the mean square over σ·C (χ²)",
        figure=float(np.sqrt(np.square(rows).mean())),
        low=float(np.sqrt(low)),
        high=float(np.sqrt(high)),
    )


def chi2_p(energies: Floats | float, values: float) -> Floats:
    """Two-sided p-values of sums of squares of `values` values each."""
    from scipy import stats

    return two_sided(stats.chi2.cdf(energies, values), stats.chi2.sf(energies, values))


def tensor_p(tensors: Sequence[Floats]) -> list[float]:
    """p-values of each tensor's mean square, over all steps and in each step."""
    squares = [np.square(tensor).sum(axis=1) for tensor in tensors]
    sizes = [tensor.shape[1] for tensor in tensors]
    whole = [float(chi2_p(s.sum(), len(s) * d)) for s, d in zip(squares, sizes, strict=True)]
    each = [smallest(chi2_p(s, d)) for s, d in zip(squares, sizes, strict=True)]
    return whole + each


def value_p(rows: Floats) -> list[float]:
    """p-values of each column's mean square, and of the spread of these over all columns.

    The second shows if half of the columns are a little too loud and half too quiet.
    """
    from scipy import stats

    steps, values = rows.shape
    energies = np.square(rows).sum(axis=0)
    uniform = np.clip(stats.chi2.cdf(energies, steps), 1e-300, 1 - 1e-16)
    spread = float(np.square(stats.norm.ppf(uniform)).sum())
    return [smallest(chi2_p(energies, steps)), float(chi2_p(spread, values))]


def shape_p(rows: Floats, tensors: Sequence[Floats]) -> list[float]:
    """p-values of the distribution of all values together, and of each tensor's values."""
    from scipy import stats
    from scipy.special import ndtr

    flat = rows.ravel()[:: max(1, rows.size // 1_000_000)]
    found = [float(stats.kstest(flat, "norm").pvalue)]
    for tensor in tensors:
        angles = np.pi * ndtr(tensor.ravel()[:: max(1, tensor.size // 500_000)])
        sums = np.array([np.cos(j * angles).sum() for j in range(1, COSINES + 1)])
        found.append(smallest(2 * np.exp(-np.square(sums) / len(angles))))
    return found


def tail_p(rows: Floats, tensors: Sequence[Floats]) -> list[float]:
    """p-values of each tensor's largest absolute value, and of the fourth moment of all values.

    The moment is left out below 50,000 values, where its distribution has heavier tails than a
    normal.
    """
    from scipy import stats
    from scipy.special import log_ndtr

    found = []
    for tensor in tensors:
        largest = float(np.abs(tensor).max())
        outside = np.exp(np.log(2) + log_ndtr(-largest))
        inside = tensor.size * np.log1p(-min(outside, 1 - 1e-16))  # log P(all are inside)
        found.append(float(two_sided(np.exp(inside), -np.expm1(inside))))
    if rows.size >= 50_000:
        # Var(x⁴ − 3) = 96 where the variance is known.
        excess = (np.square(np.square(rows)).mean() - 3) / np.sqrt(96 / rows.size)
        # Its third moment shifts a tail at five deviations by 0.2 at 50,000 values.
        found.append(float(min(1.0, 2 * stats.norm.sf(max(abs(excess) - 0.5, 0.0)))))
    return found


def angle_p(rows: Floats) -> list[float]:
    """p-values of the angles between all pairs of rows: of the smallest one, and of their spread.

    The second shows noise with fewer dimensions than values: d·cos² has mean 1 and variance
    2(d − 1)/(d + 2), and any two of them are independent.
    """
    steps, values = rows.shape
    if steps < 2 or values < 2:
        return []
    squares = np.square(_cosines(rows, rows)[np.triu_indices(steps, 1)])
    scale = (values - 1) / (values + 2)
    pairs = len(squares)
    mean = float(values * squares.sum()) / scale
    return [cosine_p(squares, values), float(chi2_p(mean, pairs / scale))]


def block_p(tensors: Sequence[Floats]) -> list[float]:
    """p-values of the angles between tensors of one size in all steps; they find copies, also
    reversed."""
    found = []
    for size in {tensor.shape[1] for tensor in tensors if tensor.shape[1] >= BLOCK_VALUES}:
        blocks = np.concatenate([t for t in tensors if t.shape[1] == size])
        if len(blocks) > MOST_BLOCKS:
            blocks = blocks[np.sort(np.random.default_rng().permutation(len(blocks))[:MOST_BLOCKS])]
        pairs = np.triu_indices(len(blocks), 1)
        ordered = np.square(_cosines(blocks, blocks)[pairs])
        found.append(cosine_p(ordered, size))
        # Leave out a block against its own reverse, which depend on each other.
        back = np.square(_cosines(blocks, blocks[:, ::-1])[pairs])
        found.append(cosine_p(back, size))
    return found


def cosine_p(squares: Floats, values: int) -> float:
    """Two-sided p-value of the largest of squared cosines between independent Gaussian vectors."""
    from scipy.special import betainc

    if not squares.size:
        return 1.0
    largest = float(squares.max())  # NaN where one is
    p = float(betainc((values - 1) / 2, 0.5, np.clip(1 - largest, 0.0, 1.0)))
    return float("nan") if np.isnan(largest) else min(1.0, p * squares.size)


def _cosines(one: Floats, other: Floats) -> Floats:
    """Cosines of all pairs of rows; NaN, which refutes, if a row is zero."""
    with np.errstate(invalid="ignore"):
        left = one / np.linalg.norm(one, axis=1, keepdims=True)
        right = other / np.linalg.norm(other, axis=1, keepdims=True)
    cosines: Floats = left @ right.T
    return cosines
