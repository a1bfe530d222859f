"""ε against published and closed-form values, and its monotonicity."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from cloister.errors import RefusedError
from cloister.privacy import accounting
from cloister.privacy.accounting import calibrate, epsilon
from cloister.privacy.events import GaussianEvent


def event(sigma: float, q: float, steps: int, **kwargs: bool) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=sigma, sample_rate=q, steps=steps, **kwargs)


def gaussian_epsilon(sigma: float, steps: int, delta: float) -> float:
    """Exact ε of `steps` full-batch Gaussians (Balle & Wang 2018, arXiv:1805.06530, theorem 8);
    T of them at σ are one at σ/√T."""
    mu = math.sqrt(steps) / sigma

    def excess(eps: float) -> float:
        left = norm.cdf(-eps / mu + mu / 2)
        return float(left - math.exp(eps) * norm.cdf(-eps / mu - mu / 2) - delta)

    return float(brentq(excess, 0, 200))


# (σ, q, T, δ) and ε by PLD as computed with dp-accounting 0.6.0 and confirmed by Monte Carlo; the
# first of each comment is the setting's origin.
REFERENCE = [
    (1.0, 0.1, 1, 1e-5, 1.6845),
    (4.0, 0.01, 10_000, 1e-5, 0.9470),  # Abadi et al. 2016 (moments accountant: 1.26)
    (1.5, 0.04, 2249, 1e-5, 6.7671),  # Opacus' own test
    (0.8, 0.05, 100, 1e-6, 6.7306),
    (1.0, 0.032, 600, 1e-5, 5.0474),  # a LoRA site of 2,000 records
]


@pytest.mark.parametrize(("sigma", "q", "steps", "delta", "expected"), REFERENCE)
def test_subsampled_values_agree_with_the_reference(
    sigma: float, q: float, steps: int, delta: float, expected: float
) -> None:
    # The table has four decimals.
    assert epsilon([event(sigma, q, steps)], delta) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("sigma", "steps", "delta"), [(1, 1, 1e-5), (4, 100, 1e-5), (5, 30, 1e-6)])
def test_full_batch_values_bound_the_closed_form(sigma: float, steps: int, delta: float) -> None:
    exact = gaussian_epsilon(sigma, steps, delta)
    found = epsilon([event(sigma, 1.0, steps)], delta)
    # PLD's discretisation is pessimistic, by 2e-4 at most on such settings (measured).
    assert exact <= found <= exact + 5e-4


def test_two_runs_compose_below_their_sum() -> None:
    once = event(1.0, 0.032, 600)
    assert epsilon([once, once], 1e-5) == pytest.approx(7.2703, abs=1e-4)


def test_different_rounds_compose_in_any_order() -> None:
    events = [event(1, 0.02, 500), event(0.8, 0.05, 250), event(5, 1, 1)]
    assert epsilon(events, 1e-5) == pytest.approx(9.0803, abs=1e-4)
    assert epsilon(events[::-1], 1e-5) == epsilon(events, 1e-5)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([event(1.0, 0.1, 0)], 1e-5) == 0.0


@pytest.mark.parametrize("bad", [event(0.0, 0.1, 1), event(1.0, 0.1, 1, is_private=False)])
def test_one_release_without_privacy_makes_all_infinite(bad: GaussianEvent) -> None:
    assert epsilon([event(4.0, 0.01, 10), bad], 1e-5) == math.inf


def test_accountants_that_contradict_each_other_stop_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accounting._epsilon.cache_clear()
    monkeypatch.setattr(accounting, "_rdp_epsilon", lambda composition, delta: 0.1)
    with pytest.raises(RefusedError, match="disagree"):
        epsilon([event(1.1, 0.1, 1)], 1e-5)


@pytest.mark.parametrize(("q", "steps", "target"), [(0.04, 60, 8.0), (0.1, 30, 1.0), (1.0, 5, 3.0)])
def test_calibrated_noise_meets_its_target_and_wastes_little(
    q: float, steps: int, target: float
) -> None:
    sigma = calibrate(q, steps, target, 1e-5)
    assert epsilon([event(sigma, q, steps)], 1e-5) <= target
    # One per cent less noise would miss it: calibration is to a tenth of that.
    assert epsilon([event(sigma * 0.99, q, steps)], 1e-5) > target


def test_a_target_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(RefusedError, match="use fewer steps"):
        calibrate(1.0, 10**9, 0.001, 1e-5)
