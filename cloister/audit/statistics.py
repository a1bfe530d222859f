"""The result of a statistical check, and its error probability.

A check states a figure and limits; if the law holds, the figure lies between them with probability
1 − LEVEL or more. A figure outside refutes the law; a figure inside proves nothing. The tests
themselves are in `noise_tests`, `repeat_tests` and `sampler_tests`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Largest probability that one check of a sound mechanism fails. At most MOST_CHECKS checks of a
# run are statistical (the others are exact), so at most one run in 100,000 refutes a sound
# mechanism: the sum of the levels (Bonferroni), for any dependence between checks.
LEVEL = 2e-7
MOST_CHECKS = 50


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one statistical test of a mechanism.

    Attributes:
        name: The check's name.
        law: The tested property, in words.
        figure: The measured value.
        low: The lowest allowed figure.
        high: The highest allowed figure.
        is_exact: Whether a sound mechanism never fails it.
    """

    name: str
    law: str
    figure: float
    low: float
    high: float
    is_exact: bool = False

    @property
    def refuted(self) -> bool:
        """Whether the figure is outside of the limits, or NaN."""
        return not self.low <= self.figure <= self.high


def p_check(name: str, law: str, p_values: Iterable[float]) -> Check:
    """A check of several statistics by the smallest p-value.

    Args:
        name: The check's name.
        law: The tested property, in words.
        p_values: One per statistic; NaN refutes.

    Returns:
        A check whose figure is the smallest p-value times their number (Bonferroni), at most 1.
    """
    p = np.array(list(p_values), dtype=np.float64)
    figure = float(min(1.0, p.min() * len(p))) if len(p) else 1.0  # NaN passes through min()
    if np.isnan(p).any():
        figure = float("nan")
    return Check(
        name=name,
        law=f"{law} (smallest p-value × {max(len(p), 1)})",
        figure=figure,
        low=LEVEL,
        high=1.0,
    )


def exact_check(name: str, law: str, figure: float, most: float = 0.0) -> Check:
    """A check without chance: the figure of a sound mechanism is from 0 to `most`."""
    return Check(name=name, law=law, figure=float(figure), low=0.0, high=most, is_exact=True)


def two_sided(below: Floats | float, above: Floats | float) -> Floats:
    """Two-sided p-values from the probabilities of at most, and of at least, the observed value."""
    return np.asarray(np.minimum(1.0, 2 * np.minimum(below, above)), dtype=np.float64)


def smallest(p_values: Floats | float) -> float:
    """The p-value of the most extreme of several statistics (Bonferroni)."""
    p = np.atleast_1d(np.asarray(p_values, dtype=np.float64))
    if not p.size:
        return 1.0
    return float("nan") if np.isnan(p).any() else float(min(1.0, p.min() * p.size))
