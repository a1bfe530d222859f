"""Tests a claim with many canaries in a single run.

A fair coin decides for each of m canaries whether it is in the data; an attack guesses from the
run's releases which ones are. A claim bounds how many of their guesses can be right (Mahloujifar,
Melis, Chaudhuri 2024, arXiv:2410.22235, algorithm 3; the earlier bound is of Steinke, Nasr,
Jagielski 2023, arXiv:2305.08846, which finds halved noise in no more than one run of twenty).

Math:
    Of c guesses, c₁ are right. r_c₁ = τ·c₁/m and h_c₁ = τ·(c − c₁)/m; for i = c₁ − 1 … 0,
    h_i = max(h_{i+1}, f̄⁻¹(r_{i+1})), r_i = r_{i+1} + i/(c − i) · (h_i − h_{i+1}). The claim is
    refuted at level τ where r₀ + h₀ > c/m. f̄ = 1 − f: an event of probability x without a unit has
    at most f̄(x) with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloister.audit.lower_bounds import EPSILONS, LEVEL, tightest_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.pld import pld_deltas

Floats = NDArray[np.float64]

# Shares of the canaries that are guessed to be in, fixed in advance; only their number divides the
# level. A share of 0.1 gives the best bound on sound runs, a large share if all guesses are right.
# Even then 1,500 canaries show at most ε = 6, and 5,000 at most 7.
SHARES = (0.03, 0.1, 0.2, 0.45)


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How many of the best-scored canaries were in the data.

    Attributes:
        canaries: m, the number of canaries.
        counts: (guesses, right ones) for each of `SHARES`.
    """

    canaries: int
    counts: tuple[tuple[int, int], ...]


def guess(scores: Floats, included: NDArray[np.bool_]) -> Guesses:
    """Guesses that the canaries with the highest scores are in.

    Args:
        scores: Score of each canary; higher means "in".
        included: Whether each canary was in.
    """
    best_first = np.argsort(-scores, kind="stable")
    counts = []
    for share in SHARES:
        chosen = best_first[: max(1, round(share * len(scores)))]
        counts.append((len(chosen), int(included[chosen].sum())))
    return Guesses(canaries=len(scores), counts=tuple(counts))


def refutes(guesses: Guesses, claim: GaussianEvent, level: float = LEVEL) -> bool:
    """Whether more guesses are right than the claim allows.

    Args:
        guesses: The guesses of one run.
        claim: The claimed mechanism of the whole run.
        level: Probability that a sound mechanism is refuted.
    """
    needed = blow_up_inverse(claim)
    return any(
        too_many_right(guesses.canaries, made, right, needed, level / len(guesses.counts))
        for made, right in guesses.counts
    )


def one_run_bound(guesses: Guesses, claim: GaussianEvent, delta: float) -> float:
    """A lower bound on ε at confidence 1 − LEVEL: see `lower_bounds.tightest_epsilon`."""
    return tightest_epsilon(lambda event: refutes(guesses, event), claim, delta)


def too_many_right(
    canaries: int, made: int, right: int, needed: Callable[[float], float], level: float
) -> bool:
    """Tests one number of guesses.

    Args:
        canaries: m, the number of canaries.
        made: c, the guesses.
        right: c₁, the right ones.
        needed: f̄⁻¹ of the claim.
        level: τ.
    """
    r, h = level * right / canaries, level * (made - right) / canaries
    for i in range(right - 1, -1, -1):
        higher = max(h, needed(r))
        if higher == h:
            break  # neither changes from here on
        r, h = min(1.0, r + i / (made - i) * (higher - h)), higher
    return r + h > made / canaries


def blow_up_inverse(claim: GaussianEvent) -> Callable[[float], float]:
    """A lower bound on f̄⁻¹ of a claim, from the lines of its (ε, δ(ε)).

    f ≥ 1 − δ − e^ε·x and f ≥ e^−ε·(1 − δ − x), so f(x) ≤ 1 − r needs x ≥ e^−ε·(r − δ) and
    x ≥ 1 − δ − e^ε·(1 − r).
    """
    composition = ((claim.noise_multiplier, claim.sample_rate, claim.steps),)
    deltas = np.array(pld_deltas(composition, EPSILONS))
    grows = np.exp(np.array(EPSILONS))

    def needed(r: float) -> float:
        return max(
            0.0, float(((r - deltas) / grows).max()), float((1 - deltas - grows * (1 - r)).max())
        )

    return needed
