"""Lower bounds on ε from samples: tests whether an attack does better than the claim allows.

An attack scores outcomes of runs with and without one unit. At a threshold chosen on one half of
the runs, the other half gives its false-positive and false-negative rates with exact confidence
bounds (Clopper & Pearson 1934). A claim says that no attack can lie below its trade-off curve
(Dong, Roth, Su 2022, arXiv:1905.02383); rates whose upper bounds do refute it. Choosing the
threshold on the same runs would refute sound mechanisms, so it is never done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloister.privacy.accounting import epsilon
from cloister.privacy.events import MOST_NOISE, GaussianEvent
from cloister.privacy.pld import COARSE, Composition, pld_deltas

Floats = NDArray[np.float64]

# Chance that a sound mechanism is refuted by one audit.
LEVEL = 1e-3
# Values of ε at which a claim's curve is evaluated; their lines bound it from below in between.
EPSILONS = tuple(step * 0.02 for step in range(1000))
# Number of candidate thresholds: quantiles of all scores of the first half.
CANDIDATES = 199


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of an attack: confidence bounds on its error rates.

    Attributes:
        false_positives: Upper confidence bound on the false-positive rate.
        false_negatives: Upper confidence bound on the false-negative rate.
        least: The lowest false-negative rate that the claim allows at that false-positive rate.
    """

    false_positives: float
    false_negatives: float
    least: float

    @property
    def refuted(self) -> bool:
        """Whether the attack does better than the claim allows."""
        return self.false_negatives < self.least


def judge(absent: Floats, present: Floats, claim: GaussianEvent) -> Finding:
    """Tests a claim by an attack's scores.

    Args:
        absent: Scores of runs without the unit; higher means "present".
        present: Scores of independent runs with it.
        claim: The claimed mechanism of one run.
    """
    half = min(len(absent), len(present)) // 2
    threshold = _threshold(absent[:half], present[:half])
    tested = absent[half:], present[half:]
    wrong_in, wrong_out = int((tested[0] > threshold).sum()), int((tested[1] <= threshold).sum())
    false_positives = _upper(wrong_in, len(tested[0]))
    false_negatives = _upper(wrong_out, len(tested[1]))
    return Finding(
        false_positives=false_positives,
        false_negatives=false_negatives,
        least=least_false_negatives(claim, false_positives),
    )


def epsilon_bound(finding: Finding, claim: GaussianEvent, delta: float) -> float:
    """A lower bound on ε at confidence 1 − LEVEL.

    Args:
        finding: An attack's rates.
        claim: The claimed mechanism of one run.
        delta: δ at which ε is stated.

    Returns:
        ε of the most private mechanism of the claim's family (same rate and steps, other noise)
        that the rates do not refute; 0 if they refute none.
    """

    def refutes(event: GaussianEvent) -> bool:
        return finding.false_negatives < least_false_negatives(event, finding.false_positives)

    return tightest_epsilon(refutes, claim, delta)


def tightest_epsilon(
    refutes: Callable[[GaussianEvent], bool], claim: GaussianEvent, delta: float
) -> float:
    """ε of the most private mechanism of the claim's family that an attack does not refute.

    Args:
        refutes: Whether the attack refutes a claim. If it refutes one, it refutes every claim with
            more noise.
        claim: Gives the family: same rate and steps, other noise.
        delta: δ at which ε is stated.
    """
    low, high = claim.noise_multiplier / 16, min(claim.noise_multiplier * 16, MOST_NOISE)
    if not refutes(replace(claim, noise_multiplier=high)):
        return 0.0
    for _ in range(14):  # to a factor of 16^(2/2^14): four digits
        midpoint = math.sqrt(low * high)
        is_refuted = refutes(replace(claim, noise_multiplier=midpoint))
        low, high = (low, midpoint) if is_refuted else (midpoint, high)
    return epsilon([replace(claim, noise_multiplier=low)], delta, COARSE)


def least_false_negatives(claim: GaussianEvent, false_positives: float) -> float:
    """A lower bound on the claim's trade-off curve: the lowest false-negative rate at a
    false-positive rate, from the lines of each (ε, δ(ε)) (Dong, Roth, Su 2022, proposition
    2.12)."""
    composition: Composition = ((claim.noise_multiplier, claim.sample_rate, claim.steps),)
    deltas = pld_deltas(composition, EPSILONS)
    pairs = list(zip(EPSILONS, deltas, strict=True))
    steep = max(1 - delta - math.exp(e) * false_positives for e, delta in pairs)
    flat = max(math.exp(-e) * (1 - delta - false_positives) for e, delta in pairs)
    return max(0.0, steep, flat)


def _threshold(absent: Floats, present: Floats) -> float:
    """The candidate threshold with the largest ε on this half of the runs."""
    pooled = np.concatenate([absent, present])
    candidates = np.quantile(pooled, np.linspace(0.005, 0.995, CANDIDATES))
    positives = np.array([_upper(int((absent > t).sum()), len(absent)) for t in candidates])
    negatives = np.array([_upper(int((present <= t).sum()), len(present)) for t in candidates])
    gain = np.maximum(
        np.log(np.maximum(1 - negatives, 1e-12) / positives),
        np.log(np.maximum(1 - positives, 1e-12) / negatives),
    )
    return float(candidates[int(gain.argmax())])


def _upper(hits: int, trials: int) -> float:
    """Clopper-Pearson upper bound; each of the two rates has half of LEVEL."""
    from scipy.stats import beta

    return 1.0 if hits == trials else float(beta.ppf(1 - LEVEL / 2, hits + 1, trials - hits))
