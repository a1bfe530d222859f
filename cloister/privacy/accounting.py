"""ε from events, on demand: privacy loss distributions, cross-checked by Rényi DP.

Every ε here is for adding or removing one unit, against an adversary who sees every release.
The reported value is the pessimistic PLD of dp-accounting (Doroshenko et al. 2022,
arXiv:2207.04380); its RDP (Mironov 2017, arXiv:1702.07476) is looser and must never be smaller.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cloister.errors import RefusedError
from cloister.privacy.events import GaussianEvent

# Both accountants carry numerical error of this order (measured against closed forms: 2·10⁻⁴).
NUMERICAL_SLACK = 1e-3
# Width of the PLD's grid: dp-accounting's own default.
GRID = 1e-4
# Calibrated noise is at most this fraction above the least that meets the target.
CALIBRATION_PRECISION = 1e-3
# The accountants' own range: below it PLD grids grow without bound, above it ε is 0 to 4 digits.
SMALLEST_NOISE, LARGEST_NOISE = 0.2, 1e4


Composition = tuple[tuple[float, float, int], ...]  # (noise multiplier, sample rate, steps) each


def epsilon(events: Iterable[GaussianEvent], delta: float) -> float:
    """ε of a sequence of releases, per unit added or removed.

    Args:
        events: What was released, in any order.
        delta: δ of the guarantee.

    Returns:
        ε; 0 for no event, ∞ where an event is not private or its noise is 0.

    Raises:
        RefusedError: The two accountants contradict each other or give no number.

    Guarantees:
        An upper bound under add/remove neighbouring. NaN never passes.
    """
    merged: dict[tuple[float, float], int] = {}
    for event in events:
        if event.steps and event.sample_rate > 0:
            if not event.is_private or event.noise_multiplier == 0:
                return math.inf
            key = (event.noise_multiplier, event.sample_rate)
            merged[key] = merged.get(key, 0) + event.steps
    if not merged:
        return 0.0
    return _epsilon(tuple(sorted((*key, steps) for key, steps in merged.items())), delta)


def calibrate(sample_rate: float, steps: int, target_epsilon: float, delta: float) -> float:
    """The least noise multiplier, to four digits and rounded up, that meets a target.

    Raises:
        RefusedError: No noise multiplier in the accountants' range meets it.

    Guarantees:
        `epsilon` of the result is at most `target_epsilon`.
    """
    from scipy.optimize import brentq

    def excess(noise: float) -> float:
        return _pld_epsilon(((noise, sample_rate, steps),), delta) - target_epsilon

    # RDP is fast and never below PLD: what meets the target by RDP bounds the search from above.
    high = SMALLEST_NOISE
    while _rdp_epsilon(((high, sample_rate, steps),), delta) > target_epsilon:
        high *= 1.25
        if high > LARGEST_NOISE:
            raise RefusedError(
                f"epsilon {target_epsilon} with delta {delta} cannot be met in {steps} steps at "
                f"sample rate {sample_rate}: use fewer steps, a smaller batch or a larger epsilon"
            )
    low = max(high / 1.25, SMALLEST_NOISE)
    while low > SMALLEST_NOISE and excess(low) <= 0:
        low, high = max(low / 1.25, SMALLEST_NOISE), low
    if excess(low) > 0:
        low = float(brentq(excess, low, high, xtol=CALIBRATION_PRECISION * low / 4))
    noise = math.ceil(low * 1e4) / 1e4
    while epsilon([_one(noise, sample_rate, steps)], delta) > target_epsilon:
        noise = math.ceil(noise * (1 + CALIBRATION_PRECISION / 4) * 1e4) / 1e4
    return noise


def _one(noise_multiplier: float, sample_rate: float, steps: int) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)


@lru_cache(maxsize=4096)
def _epsilon(composition: Composition, delta: float) -> float:
    pld, rdp = _pld_epsilon(composition, delta), _rdp_epsilon(composition, delta)
    if math.isnan(pld) or math.isnan(rdp) or pld > rdp + NUMERICAL_SLACK:
        raise RefusedError(
            f"the accountants disagree (PLD {pld}, RDP {rdp}) on {composition}; nothing is "
            "released on such a figure: use a larger delta or more noise"
        )
    return pld


@lru_cache(maxsize=4096)
def _pld_epsilon(composition: Composition, delta: float) -> float:
    try:
        composed = [
            _one_step(noise, rate).self_compose(steps) for noise, rate, steps in composition
        ]
        total = composed[0]
        for other in composed[1:]:
            total = total.compose(other)
        return float(total.get_epsilon_for_delta(delta))
    except (MemoryError, OverflowError):
        return math.inf  # a loss too large for the accountant's grid: no bound, so no release


@lru_cache(maxsize=64)
def _one_step(noise_multiplier: float, sample_rate: float) -> Any:
    """The privacy loss distribution of one step; making it costs more than composing it."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sample_rate,
        pessimistic_estimate=True,
        value_discretization_interval=GRID,
        use_connect_dots=True,
    )


def _rdp_epsilon(composition: Composition, delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    # RDP drops orders at which its series does not converge, which only loosens it; it says so
    # on absl's logger once per order.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        accountant = RdpAccountant()
        for noise_multiplier, sample_rate, steps in composition:
            gaussian = GaussianDpEvent(noise_multiplier)
            accountant.compose(PoissonSampledDpEvent(sample_rate, gaussian), steps)
        return float(accountant.get_epsilon(delta))
    except OverflowError:
        return math.inf
    finally:
        logger.setLevel(level)
