"""The watch's statistics against SciPy's, and what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.watching.distances import ADDED, chi_square, kolmogorov_smirnov, psi
from cloister.watching.rates import dispersion, excess, poisson_interval
from cloister.watching.replayed_history import median

counts = st.lists(st.integers(0, 400), min_size=2, max_size=12)


def drawn(seed: int, size: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, size=size)


def test_psi_of_a_worked_example() -> None:
    """Shares 0.5, 0.5 against 0.25, 0.75, where the added halves no longer matter."""
    by_hand = -0.25 * math.log(0.25 / 0.5) + 0.25 * math.log(0.75 / 0.5)
    assert psi([5e6, 5e6], [2.5e6, 7.5e6]) == pytest.approx(by_hand, rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=2, max_size=12))
def test_psi_is_symmetric_and_never_negative(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    assert psi(first, second) == pytest.approx(psi(second, first), abs=1e-12)
    assert psi(first, second) >= 0
    assert psi(first, first) == 0
    assert math.isfinite(psi(first, second))


def test_the_mean_psi_without_drift_is_what_the_docstring_says() -> None:
    """(K − 1)(1/n + 1/m), here 9 · (1/2000 + 1/500); of 400 draws its mean is within 10 %."""
    rng, shares = np.random.default_rng(1), np.full(10, 0.1)
    draws = [psi(rng.multinomial(2000, shares), rng.multinomial(500, shares)) for _ in range(400)]
    assert np.mean(draws) == pytest.approx(9 * (1 / 2000 + 1 / 500), rel=0.1)
    assert ADDED == 0.5


def test_chi_square_is_scipy_s_where_no_category_is_rare() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        table = rng.integers(20, 90, size=(2, 5))
        oracle = stats.chi2_contingency(table, correction=False).pvalue
        assert chi_square(table[0], table[1]) == pytest.approx(oracle, rel=1e-9)


def test_rare_categories_are_joined() -> None:
    """Two that are expected three times each are one of six; two of one each join the smallest."""
    joined = chi_square([90, 104, 2, 4], [80, 114, 4, 2])
    oracle = stats.chi2_contingency([[90, 104, 6], [80, 114, 6]], correction=False).pvalue
    assert joined == pytest.approx(oracle, rel=1e-9)
    joined = chi_square([90, 108, 2, 0], [80, 118, 0, 2])
    oracle = stats.chi2_contingency([[92, 108], [82, 118]], correction=False).pvalue
    assert joined == pytest.approx(oracle, rel=1e-9)
    assert chi_square([200, 1, 0], [200, 0, 1]) is None
    assert chi_square([200, 0], [100, 0]) is None


@given(counts, counts)
def test_chi_square_gives_a_probability_or_nothing(first: list[int], second: list[int]) -> None:
    size = min(len(first), len(second))
    p = chi_square(first[:size], second[:size])
    assert p is None or 0 <= p <= 1


@pytest.mark.parametrize(("n", "m", "shift"), [(200, 100, 0), (500, 150, 0.3), (80, 400, 0.2)])
def test_kolmogorov_smirnov_is_near_scipy_s_exact_one(n: int, m: int, shift: float) -> None:
    """The corrected limit is within a fifth of the exact p where it matters, above 1e-5."""
    for seed in range(5):
        first, second = drawn(seed, n), drawn(seed + 100, m, shift)
        oracle = stats.ks_2samp(first, second, method="exact").pvalue
        p = kolmogorov_smirnov(np.sort(first), second)
        assert p == pytest.approx(oracle, rel=0.2)


def test_kolmogorov_smirnov_with_ties_is_no_smaller_than_allowed() -> None:
    """Of lengths that are a few whole numbers, one in twenty windows at most is under 5 %."""
    rng = np.random.default_rng(3)
    reference = np.sort(rng.poisson(3, size=500).astype(float))
    found = [kolmogorov_smirnov(reference, rng.poisson(3, size=100)) for _ in range(300)]
    assert np.mean([p is not None and p <= 0.05 for p in found]) <= 0.05
    assert kolmogorov_smirnov(reference, np.array([])) is None


@given(st.integers(0, 60), st.integers(0, 200), st.floats(0.1, 20), st.floats(0.1, 500))
def test_excess_is_the_exact_binomial_tail(c: int, b: int, exposure: float, past: float) -> None:
    oracle = (
        stats.binomtest(c, c + b, exposure / (exposure + past), alternative="greater").pvalue
        if c + b
        else 1.0
    )
    assert excess(c, exposure, b, past, 1.0) == pytest.approx(oracle, rel=1e-6, abs=1e-12)


@given(st.integers(1, 60), st.integers(0, 200), st.floats(0.01, 0.9), st.floats(1.01, 20))
def test_excess_is_scipy_s_beta_binomial_tail(c: int, b: int, share: float, varies: float) -> None:
    size = (c + b) / (varies - 1)
    oracle = stats.betabinom.sf(c - 1, c + b, size * share, size * (1 - share))
    found = excess(c, share, b, 1 - share, varies)
    assert found == pytest.approx(oracle, rel=1e-5, abs=1e-10)


def test_excess_of_nearly_poisson_counts_is_the_poisson_one() -> None:
    """So that nothing jumps where the dispersion is estimated as 1."""
    assert excess(20, 1, 300, 50, 1.0011) == pytest.approx(excess(20, 1, 300, 50, 1.0), rel=0.05)


def test_excess_keeps_its_level_where_counts_vary_more_than_a_poisson_s() -> None:
    """Negative binomial counts of dispersion 3, at 1 % and at 0.1 %: a discrete test is found
    somewhat less often; counts divided by φ were found more often at the second, and without the
    dispersion several times as often."""
    rng, blocks, looks = np.random.default_rng(5), 100, 5000
    draws = rng.negative_binomial(4, 1 / 3, size=(looks, blocks + 1))  # mean 8, variance 24
    found = []
    for one in draws:
        past, now = one[:-1], one[-1]
        varies = dispersion(past.tolist(), [1.0] * blocks)
        tails = excess(now, 1, past.sum(), blocks, varies), excess(now, 1, past.sum(), blocks, 1.0)
        found.append(tails)
    p = np.array(found)
    assert (p[:, 0] <= 0.01).mean() < 0.014
    # Of 5,000 looks 5 are expected; 12 or more have a probability under 1 %.
    assert (p[:, 0] <= 0.001).sum() < 12
    assert (p[:, 1] <= 0.01).mean() > 0.05


def test_dispersion_of_a_worked_example() -> None:
    """Counts 2, 4, 6 of equal lengths: e = 4, so (4 + 0 + 4) / 4 / 2 = 1."""
    assert dispersion([2, 4, 6], [1, 1, 1]) == 1.0
    assert dispersion([0, 12], [1, 1]) == 12.0  # (36 + 36) / 6 / 1
    assert dispersion([0, 12], [1, 0]) == 1.0  # one period is left
    assert dispersion([1, 3], [1, 3]) == 1.0


@pytest.mark.parametrize("count", [0, 1, 7, 200])
def test_poisson_intervals_are_scipy_s(count: int) -> None:
    low, high = poisson_interval(count, 4.0)
    assert low == pytest.approx(stats.chi2.ppf(0.025, 2 * count) / 8 if count else 0.0)
    assert high == pytest.approx(stats.chi2.ppf(0.975, 2 * count + 2) / 8)


def test_the_median_s_interval_covers_at_least_its_level() -> None:
    """Ends are the order statistics of a binomial: of 6 the smallest and largest (96.9 %), of 9 the
    second from both ends (96.1 %)."""
    assert median([]) is None
    for count, place in ((1, 0), (6, 0), (8, 0), (9, 1), (17, 4), (100, 39)):
        found = median([float(n) for n in range(count)])
        assert found is not None
        assert (found.low, found.high) == (place, count - 1 - place), count
    outside = 2 * stats.binom.cdf(4, 17, 0.5)
    assert outside <= 0.05 < 2 * stats.binom.cdf(5, 17, 0.5)
