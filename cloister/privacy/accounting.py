"""Computes ε from events by privacy loss distributions, cross-checked by two other accountants.

Every ε here is for adding or removing one unit, against an adversary who sees every release. The
reported value is the pessimistic PLD. RDP is looser and must never be smaller; Opacus' PRV (Gopi et
al. 2021, arXiv:2106.02848) must agree within its own stated error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache

from cloister.errors import RefusedError
from cloister.privacy.events import MOST_NOISE, GaussianEvent
from cloister.privacy.pld import (
    COARSE,
    FINE,
    Composition,
    group_pld_epsilon,
    pld_epsilon,
    pld_true_positive_rate,
)
from cloister.privacy.prv import prv_upper_bound
from cloister.privacy.renyi import rdp_at, rdp_budget
from cloister.privacy.renyi import rdp_epsilon as _rdp_epsilon

__all__ = [
    "COARSE",
    "FINE",
    "calibrate",
    "cross_check",
    "epsilon",
    "group_epsilon",
    "prv_epsilon",
    "rdp_at",
    "rdp_budget",
    "rdp_epsilon",
    "true_positive_rate",
]

# Both accountants carry numerical error of this order (measured against closed forms: 2·10⁻⁴).
NUMERICAL_SLACK = 1e-3
# An ε above this gives no protection, and the grids of its distributions fill the memory; it counts
# as ∞.
LARGEST_EPSILON = 500.0
# PRV's upper bound lies 0.010…0.012 above PLD where both converge (measured on 24 settings): its
# own error term is 0.01.
PRV_SLACK = 0.013
# PRV's work grows with its grid, which grows with these; beyond them it does not end in seconds.
PRV_LARGEST_EPSILON, PRV_MOST_STEPS = 30.0, 100_000
# Calibrated noise is at most this fraction above the least that meets the target.
CALIBRATION_PRECISION = 1e-3
# Below it PLD grids grow without bound.
SMALLEST_NOISE = 0.2
# Below it the convolutions' error in δ would matter (`pld.FFT_ERROR` is 1 % of it).
SMALLEST_DELTA = 1e-9


def epsilon(events: Iterable[GaussianEvent], delta: float, grid: float = FINE) -> float:
    """ε of a sequence of releases, per unit added or removed.

    Args:
        events: The releases, in any order.
        delta: δ of the guarantee.
        grid: Grid of the privacy loss distributions: FINE, or COARSE, which is quicker and looser.

    Returns:
        ε; 0 for no event; ∞ if an event is not private, has no noise or more noise than the
        mechanism allows, or if ε would be above `LARGEST_EPSILON`.

    Raises:
        RefusedError: PLD and RDP contradict each other or give NaN, or δ is below
            `SMALLEST_DELTA`.

    Guarantees:
        An upper bound under add/remove neighbouring, on either grid; never NaN.
    """
    if not SMALLEST_DELTA <= delta < 1:
        raise RefusedError(
            f"delta {delta}: the accountants are exact down to {SMALLEST_DELTA:g} only; use a "
            "larger delta"
        )
    composition = _merged(events)
    if composition is None:
        return math.inf
    if not composition:
        return 0.0
    rdp = _rdp_epsilon(composition, delta)
    if rdp > LARGEST_EPSILON:
        return math.inf
    pld = pld_epsilon(composition, delta, grid)
    if pld > rdp:
        pld = pld_epsilon(composition, delta, FINE)
    if math.isnan(pld) or math.isnan(rdp) or pld > rdp + NUMERICAL_SLACK:
        raise RefusedError(
            f"the accountants disagree (PLD {pld}, RDP {rdp}) on {composition}; nothing is "
            "released on such a figure: use a larger delta or more noise"
        )
    return pld


def rdp_epsilon(events: Iterable[GaussianEvent], delta: float) -> float:
    """Computes ε by Rényi DP: a second upper bound, looser than `epsilon`.

    Args:
        events: What was released, in any order.
        delta: δ of the guarantee.

    Returns:
        ε per unit added or removed; 0 for no event; ∞ where an event is not private.

    Raises:
        RefusedError: An event is impossible (negative or NaN parameters).
    """
    composition = _merged(events)
    return math.inf if composition is None else _rdp_epsilon(composition, delta)


def prv_epsilon(events: Iterable[GaussianEvent], delta: float) -> float | None:
    """Computes ε by Opacus' PRV accountant (Gopi et al. 2021, arXiv:2106.02848), for comparison.

    Its upper bound lies about 0.011 above PLD's. No guarantee depends on it; `cross_check` compares
    it.

    Args:
        events: What was released, in any order.
        delta: δ of the guarantee.

    Returns:
        ε; None if PRV would not converge in reasonable time (large ε, tiny δ, many steps).
    """
    composition = _merged(events)
    if composition is None:
        return math.inf
    if not composition:
        return 0.0
    looser = _rdp_epsilon(composition, delta)
    steps = sum(count for *_, count in composition)
    if looser > PRV_LARGEST_EPSILON or delta < SMALLEST_DELTA or steps > PRV_MOST_STEPS:
        return None
    return _prv_epsilon(composition, delta)


@lru_cache(maxsize=256)
def _prv_epsilon(composition: Composition, delta: float) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = prv_upper_bound(composition, delta)
    except (RuntimeError, ValueError, OverflowError, FloatingPointError, MemoryError):
        return None
    return max(found, 0.0) if math.isfinite(found) else None


def cross_check(events: Iterable[GaussianEvent], delta: float) -> float:
    """Computes `epsilon` and refuses it unless all three accountants agree.

    PRV takes seconds, so this is for plans and reports, not for every round.

    Args:
        events: What was released, in any order.
        delta: δ of the guarantee.

    Returns:
        ε by PLD, as from `epsilon`. If PRV does not converge, only PLD and RDP are compared.

    Raises:
        RefusedError: PRV converges and differs from PLD by more than its stated error, or PLD and
            RDP contradict each other.
    """
    chosen = list(events)
    pld, prv = epsilon(chosen, delta), prv_epsilon(chosen, delta)
    if prv is not None and math.isfinite(pld) and not abs(prv - pld) <= PRV_SLACK:
        raise RefusedError(
            f"the accountants disagree (PLD {pld}, PRV {prv}); nothing is released on such a "
            "figure: use a larger delta or more noise, and report it"
        )
    return pld


def true_positive_rate(events: Iterable[GaussianEvent], false_positive_rate: float) -> float:
    """Bounds the true-positive rate of every test for one unit's presence.

    It shows what an ε means for a person: the same guarantee in terms of an attack, from the
    mechanism's whole trade-off curve and not from a single (ε, δ).

    Args:
        events: The releases.
        false_positive_rate: How often the test reports a unit that is absent.

    Returns:
        An upper bound on how often it reports a unit that is present; 1 if an event is not private.
    """
    composition = _merged(events)
    if composition is None:
        return 1.0
    return (
        pld_true_positive_rate(composition, false_positive_rate)
        if composition
        else (false_positive_rate)
    )


def group_epsilon(events: Iterable[GaussianEvent], delta: float, records: int) -> float:
    """Computes ε for several records of one person, added or removed together.

    Args:
        events: The releases. Where some of them see a part of the records only, as private
            evaluations see those that are held out, each is counted as if it saw all.
        delta: δ of the guarantee.
        records: How many records the person has, from 1.

    Returns:
        An upper bound on ε; ∞ where an event is not private.
    """
    composition = _merged(events)
    if composition is None:
        return math.inf
    return group_pld_epsilon(composition, delta, records) if composition else 0.0


# Cached because a site solves for the same noise at every question about a study.
@lru_cache(maxsize=256)
def calibrate(
    sample_rate: float,
    steps: int,
    target_epsilon: float,
    delta: float,
    beside: tuple[GaussianEvent, ...] = (),
) -> float:
    """Finds the least noise multiplier that meets a target ε, rounded up to four decimals.

    Args:
        sample_rate: Probability q with which a unit is in a batch, in (0, 1].
        steps: Number of releases.
        target_epsilon: The largest ε allowed, per unit added or removed.
        delta: δ of the guarantee.
        beside: Other releases, of known noise, that the target covers, too.

    Returns:
        Noise deviation over the clip bound, at most a thousandth above the smallest sufficient one.

    Raises:
        RefusedError: No noise multiplier in the accountants' range meets it.

    Guarantees:
        `epsilon` of the result, together with `beside`, is at most `target_epsilon`.
    """
    from scipy.optimize import brentq

    def whole(noise: float) -> Composition:
        found = _merged([_one(noise, sample_rate, steps), *beside])
        if found is None:
            raise RefusedError("a release beside the calibrated ones is not private")
        return found

    def excess(noise: float) -> float:
        return pld_epsilon(whole(noise), delta, COARSE) - target_epsilon

    unmet = (
        f"epsilon {target_epsilon} with delta {delta} cannot be met in {steps} steps at sample "
        f"rate {sample_rate}{' beside the evaluations' if beside else ''}: use fewer steps, a "
        "smaller batch or a larger epsilon" + (", or more evaluation noise" if beside else "")
    )
    high = _met_by_rdp(whole, target_epsilon, delta)
    if high is None:
        raise RefusedError(unmet)
    low = max(high / 1.25, SMALLEST_NOISE)
    while low > SMALLEST_NOISE and excess(low) <= 0:
        low, high = max(low / 1.25, SMALLEST_NOISE), low
    # For very many steps the coarse grid's ε may be above RDP's, where the search began.
    if not excess(high) <= 0:
        if not excess(MOST_NOISE) <= 0:
            raise RefusedError(unmet)
        while not excess(high) <= 0:
            high = min(high * 1.25, MOST_NOISE)
    if excess(low) > 0:
        low = float(brentq(excess, low, high, xtol=CALIBRATION_PRECISION * low / 4))
    noise = math.ceil(low * 1e4) / 1e4
    while epsilon([_one(noise, sample_rate, steps), *beside], delta) > target_epsilon:
        noise = math.ceil(noise * (1 + CALIBRATION_PRECISION / 4) * 1e4) / 1e4
    return noise


def _met_by_rdp(
    composition: Callable[[float], Composition], target: float, delta: float
) -> float | None:
    """Finds noise with which RDP meets a target ε: the least of a ladder; None where none does.

    RDP is never below PLD, so this bounds a search by PLD from above.
    """

    def is_met(noise: float, *, whole: bool = False) -> bool:
        return _rdp_epsilon(composition(noise), delta, whole=whole) <= target

    ladder = [SMALLEST_NOISE]
    while not is_met(ladder[-1], whole=True):
        if ladder[-1] * 1.25 > MOST_NOISE:
            if not is_met(ladder[-1]):
                return None
            break
        ladder.append(ladder[-1] * 1.25)
    # Fractional orders take ten times as long; they may show that one or two steps less suffice.
    while len(ladder) > 1 and is_met(ladder[-2]):
        ladder.pop()
    return ladder[-1]


def _one(noise_multiplier: float, sample_rate: float, steps: int) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)


def _merged(events: Iterable[GaussianEvent]) -> Composition | None:
    """Adds up the steps of equal mechanisms, in rising order; None if one is not private.

    Raises:
        RefusedError: An event is impossible: NaN would count as no release, and negative steps
            would lower the others' sum.
    """
    merged: dict[tuple[float, float], int] = {}
    for event in events:
        if not (event.noise_multiplier >= 0 and 0 <= event.sample_rate <= 1 and event.steps >= 0):
            raise RefusedError(f"{event}: this release is impossible; nothing is accounted for it")
        if event.steps and event.sample_rate > 0:
            # `add_noise` refuses σ > MOST_NOISE, so such an event never happened: not private. Nor
            # is a σ whose square is 0 in floats, which accountants divide by.
            if not event.is_private or not event.noise_multiplier**2 > 0:
                return None
            if event.noise_multiplier > MOST_NOISE:
                return None
            key = (event.noise_multiplier, event.sample_rate)
            merged[key] = merged.get(key, 0) + event.steps
    return tuple(sorted((*key, steps) for key, steps in merged.items()))
