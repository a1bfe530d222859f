"""Computes how much memorization a promised ε allows, and a lower bound on ε from canaries.

Math:
    A canary is one unit. Without it, its number is independent of the model, so its rank among
    N + 1 numbers is uniform: "its rank is at most k" is a test for the canary with a false-positive
    rate of k / (N + 1). (ε, δ)-DP bounds the true-positive rate of every test by
    min over ε of e^ε · FPR + δ(ε) (Kairouz, Oh and Viswanath 2015, arXiv:1311.0776, theorem 2.1).
    With T for that bound, Pr[exposure ≥ x] ≤ T(2⁻ˣ), and the mean exposure is at most
    ∫ T(2⁻ˣ) dx from 0 to log₂(N + 1).

The bounds hold for each canary, over the random choice of secret, samples and noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloister.audit.one_run import guess, one_run_bound
from cloister.ledger.stated import Stated, of_plan
from cloister.privacy.accounting import true_positive_rate
from cloister.privacy.events import GaussianEvent
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.simulation.plans import plans_of
from cloister.trust.memorize.exposure import CanaryRank

# Step of the integral, in bits; the sum takes each step's larger end, so it is an upper bound.
STEP = 0.125


@dataclass(frozen=True)
class Promise:
    """The largest promise that a study makes to a site.

    Attributes:
        stated: ε with unit, δ, neighbours and adversaries.
        event: The mechanism of the whole plan, for the accountant.
    """

    stated: Stated
    event: GaussianEvent


def promise_of(recipe: Recipe) -> Promise | None:
    """Returns the promise to the site with the largest ε; None: the sites add no noise."""
    if not recipe.privacy.enabled:
        return None
    plans = set(plans_of(recipe, recipe.data.site_names).values())
    found = [
        Promise(of_plan(plan), plan.event(plan.compositions(plan.num_rounds)))
        for plan in plans
        if plan.is_private
    ]
    return max(found, key=lambda one: one.stated.epsilon) if len(found) == len(plans) else None


def promise_of_canary(recipe: Recipe, copies: int) -> Promise | None:
    """The promise to a canary with all of its copies.

    Returns:
        None if the study has no noise at its sites, or if each copy is a unit by itself: then the ε
        of one unit does not bound what is found of the canary.
    """
    if copies > 1 and recipe.privacy.unit is not Unit.PERSON:
        return None
    return promise_of(recipe)


def most_found(promise: Promise, share: float) -> float:
    """Returns the largest probability of a planted secret among this share of likely numbers."""
    return true_positive_rate([promise.event], share)


def most_exposure(promise: Promise, others: int) -> float:
    """Returns the largest mean exposure of planted canaries that ε allows, in bits.

    Args:
        promise: The study's promise.
        others: N, the number of other numbers among which each secret is ranked.
    """
    end = math.log2(others + 1)
    bits = np.arange(0.0, end, STEP)
    widths = np.minimum(STEP, end - bits)
    heights = [most_found(promise, 2.0**-x) for x in bits]
    return float(np.dot(heights, widths))


def chance_exposure(others: int) -> float:
    """Returns the mean exposure of a uniform rank among N + 1 numbers, in bits."""
    places = np.arange(1, others + 2)
    return float(np.mean(np.log2((others + 1) / places)))


@dataclass(frozen=True)
class LowerBound:
    """A lower bound on ε from canaries, by the audit's test of one run.

    Attributes:
        epsilon: ε is at least this, at the audit's confidence; 0: the canaries show nothing.
        most: The bound that as many canaries would give if every guess were correct.
        canaries: Number of canaries.
    """

    epsilon: float
    most: float
    canaries: int


def lower_bound(promise: Promise, found: Sequence[CanaryRank]) -> LowerBound:
    """Guesses from the losses which canaries were planted, and bounds ε by the correct guesses.

    Args:
        promise: The study's promise, which has the family of mechanisms and δ.
        found: Planted and kept-out canaries; a fair coin decided for each.
    """
    planted = np.array([one.is_planted for one in found])
    scores = np.array([one.surplus for one in found])

    def shown(values: np.ndarray) -> float:
        guesses = guess(values, planted)
        return one_run_bound(guesses, promise.event, promise.stated.delta)

    return LowerBound(shown(scores), shown(planted.astype(float)), len(found))
