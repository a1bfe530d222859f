"""Intervals against closed forms and slow twins."""

import math

import numpy as np
import pytest

from cloister.trust.intervals import RESAMPLES, difference, mean, ratio, wilson


def test_wilson_solves_its_equation() -> None:
    """Both ends p satisfy |p̂ − p| = z √(p (1 − p) / n), and 0 or 1 are never left."""
    for hits, count in ((0, 5), (3, 10), (10, 10), (250, 300)):
        found = wilson(hits, count)
        assert found is not None
        for end in (found.low, found.high):
            gap = abs(hits / count - end)
            assert gap == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / count), abs=1e-6)
        assert 0 <= found.low <= found.value <= found.high <= 1
    assert wilson(0, 0) is None


def test_a_resampled_mean_has_the_spread_of_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 3.0, size=400)
    found = mean(values, np.random.default_rng(1))
    assert found is not None
    assert found.value == pytest.approx(values.mean())
    # 1.96 standard errors each way; quantiles of 2,000 draws are off by about 5 %.
    error = values.std() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_a_ratio_is_of_sums_and_its_draws_are_of_whole_records() -> None:
    """Against a twin that draws records one by one."""
    parts = np.array([[2.0, 0.0, 4.0, 1.0], [4.0, 2.0, 4.0, 5.0]])
    found = ratio(parts, np.random.default_rng(0))
    assert found is not None
    assert found.value == pytest.approx(7 / 15)
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(RESAMPLES):
        taken = rng.integers(4, size=4)
        draws.append(parts[0, taken].sum() / parts[1, taken].sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06)
    assert ratio(np.zeros((2, 3)), np.random.default_rng(0)) is None


def test_a_difference_is_paired() -> None:
    """Where the second is the first less a tenth on every record, nothing is left to chance."""
    ones = np.ones(50)
    first = np.stack([np.random.default_rng(0).random(50), ones])
    second = np.stack([first[0] - 0.1, ones])
    found = difference(np.stack([first, second]), np.random.default_rng(0))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.excludes_zero


def test_seeds_decide() -> None:
    values = np.arange(9.0)
    first, again, other = (mean(values, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
