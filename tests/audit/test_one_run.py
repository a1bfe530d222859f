"""An audit with many canaries in one run agrees with the reference and raises no false alarm."""

from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from cloister.audit.one_run import (
    Guesses,
    blow_up_inverse,
    guess,
    one_run_bound,
    refutes,
    too_many_right,
)
from cloister.privacy.events import GaussianEvent

Scores = tuple[np.ndarray, np.ndarray]


def gaussian(eps: float, delta: float) -> Callable[[float], float]:
    shift = 1 / dp_accounting.get_sigma_gaussian(eps, delta)
    return lambda r: float(norm.cdf(norm.ppf(r) - shift))


def hull(tn: list[int], fn: list[int]) -> list[tuple[int, int]]:
    """Thresholds that no two others dominate: what the reference corrects for."""
    kept: list[tuple[int, int]] = []
    for x, y in zip(fn, tn, strict=True):
        while len(kept) >= 2:
            (x0, y0), (x1, y1) = kept[-2], kept[-1]
            if (y1 - y0) * (x - x1) > (y - y1) * (x1 - x0):
                break
            kept.pop()
        kept.append((x, y))
    return kept


@pytest.mark.parametrize(
    ("shift", "expected"),
    [pytest.param(1, 2.164749, marks=pytest.mark.nightly), (2, 4.7218075)],
)
def test_it_is_the_reference_s_figure(shift: int, expected: float) -> None:
    """jax_privacy, `test_epsilon_one_run_close`: 10,000 + 10,000 quantile-spaced scores, α = 0.05,
    δ = 1e-6, over all thresholds of the hull."""
    n = 10_000
    out = norm.ppf((np.arange(n) + 0.5) / n)
    present = out + shift
    thresholds = np.append(np.union1d(present, out), np.inf)
    points = hull(
        np.searchsorted(out, thresholds).tolist(), np.searchsorted(present, thresholds).tolist()
    )
    best = 0.0
    for false_negatives, true_negatives in reversed(points):
        right, wrong = n - false_negatives, n - true_negatives
        made = right + wrong
        if not 0 < made <= 4000:  # the best threshold lies far inside
            continue

        def is_refuted(eps: float, made: int = made, right: int = right) -> bool:
            return too_many_right(2 * n, made, right, gaussian(eps, 1e-6), 0.05 / len(points))

        low, high = best, best + 8
        while high - low > 1e-6 and is_refuted(best + 1e-6):
            middle = (low + high) / 2
            low, high = (middle, high) if is_refuted(middle) else (low, middle)
        best = low
    assert best == pytest.approx(expected, abs=2e-6)


def naive(canaries: int, made: int, right: int, needed: Callable[[float], float], t: float) -> bool:
    """The recursion as the paper writes it, lists and all."""
    r, h = {right: t * right / canaries}, {right: t * (made - right) / canaries}
    for i in range(right - 1, -1, -1):
        h[i] = max(h[i + 1], needed(r[i + 1]))
        r[i] = min(1.0, r[i + 1] + i / (made - i) * (h[i] - h[i + 1]))
    return r[0] + h[0] > made / canaries


@given(
    st.integers(2, 60),
    st.data(),
    st.floats(0.1, 6.0),
    st.sampled_from([1e-3, 0.05, 0.3]),
)
def test_it_is_the_recursion_of_the_paper(
    canaries: int, data: st.DataObject, eps: float, level: float
) -> None:
    made = data.draw(st.integers(1, canaries))
    right = data.draw(st.integers(0, made))
    needed = gaussian(eps, 1e-5)
    assert too_many_right(canaries, made, right, needed, level) == naive(
        canaries, made, right, needed, level
    )


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0])
def test_a_full_batch_claim_s_curve_is_the_gaussian_s_from_below(sigma: float) -> None:
    needed = blow_up_inverse(GaussianEvent(noise_multiplier=sigma, sample_rate=1.0, steps=1))
    for r in (0.01, 0.1, 0.5, 0.9, 0.99):
        exact = float(norm.cdf(norm.ppf(r) - 1 / sigma))
        assert exact - 5e-3 <= needed(r) <= exact + 1e-9


def run(rng: np.random.Generator, canaries: int, sigma: float) -> Guesses:
    is_in = rng.random(canaries) < 0.5
    return guess(rng.normal(0, sigma, canaries) + is_in, is_in)


def claim(sigma: float) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=sigma, sample_rate=1.0, steps=1)


@pytest.mark.parametrize("eps", [1.0, 4.0, 8.0])
def test_sound_runs_are_never_refuted_in_200_repeats(eps: float) -> None:
    rng = np.random.default_rng(0)
    sigma = dp_accounting.get_sigma_gaussian(eps, 1e-5)
    assert not any(refutes(run(rng, 1000, sigma), claim(sigma)) for _ in range(200))


def test_coverage_at_a_level_that_shows() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(refutes(run(rng, 400, 1.0), claim(1.0), level=0.05) for _ in range(200))
    assert alarms <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_scores_that_know_nothing_bound_nothing() -> None:
    """A bound above 0 means that even the family's most private member is refuted."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(500):
        guesses = guess(rng.normal(size=200), rng.random(200) < 0.5)
        alarms += refutes(guesses, claim(16.0), level=0.05)
    assert alarms <= 25


def test_scores_the_wrong_way_round_bound_nothing() -> None:
    rng = np.random.default_rng(3)
    is_in = rng.random(1000) < 0.5
    guesses = guess(rng.normal(0, 0.5, 1000) - is_in, is_in)
    assert one_run_bound(guesses, claim(0.5), 1e-5) == 0.0


def test_much_too_little_noise_is_refuted_and_the_bound_lies_below_the_truth() -> None:
    """Halved noise at ε = 8 stays below this test's power: conformance is there for that."""
    rng = np.random.default_rng(4)
    for eps in (1.0, 4.0):
        sigma = dp_accounting.get_sigma_gaussian(eps, 1e-5)
        assert refutes(run(rng, 5000, sigma / 3), claim(sigma)), eps
    sigma = dp_accounting.get_sigma_gaussian(8.0, 1e-5)
    bounds = [one_run_bound(run(rng, 5000, sigma), claim(sigma), 1e-5) for _ in range(3)]
    assert 2.0 < min(bounds) <= max(bounds) < 8.0
