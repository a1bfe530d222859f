"""The law of the noise that sites share, and what it costs."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm

from cloister.errors import RefusedError
from cloister.privacy.accounting import epsilon
from cloister.privacy.entropy import OsEntropy, SeededEntropy
from cloister.privacy.events import GaussianEvent
from cloister.privacy.renyi import rdp_at
from cloister.privacy.secagg.discrete_noise import SMALLEST, acceptance, discrete_gaussian
from cloister.privacy.secagg.shared_noise import (
    MOST_LENGTHENING,
    shared_epsilon,
    shared_noise,
    sum_excess,
)
from cloister.privacy.secagg.terms import Terms

# Above the largest statistic that a correct law gives once in a million.
RARE = 1e-6


def terms(sites: int = 10, missing: int = 2, colluding: int = 1, bits: int = 32) -> Terms:
    members = {f"s{n}": "00" * 32 for n in range(sites)}
    return Terms(study="s", epoch=1, members=members, missing=missing, colluding=colluding,
                 bits=bits)  # fmt: skip


def exact(deviation: float, most: int) -> np.ndarray:  # type: ignore[type-arg]
    """Probabilities of −most … most, by the definition."""
    steps = np.arange(-most, most + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    return weights / weights.sum()


def statistic(drawn: np.ndarray, deviation: float) -> tuple[float, int]:  # type: ignore[type-arg]
    """χ² of draws against a discrete Gaussian, in cells of about a tenth of a deviation."""
    width, most = max(1, round(deviation / 10)), round(12 * deviation)
    pmf = exact(deviation, most)
    cells = (np.arange(-most, most + 1) + most) // width
    expected = np.bincount(cells, pmf) * len(drawn)
    seen = np.bincount((np.clip(drawn, -most, most) + most) // width, minlength=len(expected))
    good = expected >= 20
    apart = ((seen - expected) ** 2 / np.where(good, expected, 1))[good].sum()
    return float(apart), int(good.sum()) - 1


@pytest.mark.parametrize("deviation", [SMALLEST, 77.7, 4096.0, 2.0**26])
def test_its_law_is_the_discrete_gaussian(deviation: float) -> None:
    drawn = discrete_gaussian(deviation, 400_000, OsEntropy())
    assert drawn.dtype == np.int64
    if deviation < 1e5:
        found, cells = statistic(drawn, deviation)
        assert found < chi2.isf(RARE, cells)
        if deviation > 100:  # below, stretching by 2 % leaves gaps of its own
            stretched = np.rint(drawn * 1.02).astype(np.int64)
            assert statistic(stretched, deviation)[0] > chi2.isf(RARE, cells)
    assert np.std(drawn) == pytest.approx(deviation, rel=0.01)
    assert drawn.mean() == pytest.approx(0, abs=6 * deviation / math.sqrt(len(drawn)))


def test_what_is_kept_of_a_rounded_normal_is_exactly_a_discrete_gaussian() -> None:
    deviation = SMALLEST
    steps = np.arange(-round(8 * deviation), round(8 * deviation) + 1, dtype=np.float64)
    upper, lower = np.maximum(-steps, steps) - 0.5, np.maximum(-steps, steps) + 0.5
    rounded = norm.sf(upper / deviation) - norm.sf(lower / deviation)
    kept = rounded * acceptance(steps, deviation)
    wanted = np.exp(-(steps**2) / (2 * deviation**2))
    ratio = kept / kept.max() / wanted
    assert np.abs(ratio - 1).max() < 1e-8
    assert acceptance(steps, deviation).max() <= 1
    raw = rounded / rounded.max() / wanted
    assert np.abs(raw - 1).max() > 1e-4  # without the rejection it is not one


def test_a_deviation_that_is_too_small_is_refused() -> None:
    for deviation in (0.0, SMALLEST * 0.99, math.nan, math.inf):
        with pytest.raises(RefusedError, match="more bits"):
            discrete_gaussian(deviation, 3, OsEntropy())


def noise_of_a_sum(share: float, sites: int, count: int = 200_000) -> np.ndarray:  # type: ignore[type-arg]
    entropy = SeededEntropy(np.random.default_rng(5))
    return np.sum([discrete_gaussian(share, count, entropy) for _ in range(sites)], axis=0)


def test_the_fewest_honest_sites_noise_is_the_plans_and_more_is_more() -> None:
    agreed = terms(bits=16)
    noise = shared_noise(agreed, bound=1.0, noise_multiplier=1.3, expected_batch_size=8, values=900)
    whole = 1.3 / noise.grid
    assert noise.share * math.sqrt(agreed.honest) == pytest.approx(whole)
    found, cells = statistic(noise_of_a_sum(noise.share, agreed.honest), whole)
    assert found < chi2.isf(RARE, cells)


def test_noise_that_is_shared_among_too_many_is_seen() -> None:
    """Sized for all sites instead of the fewest honest ones; or one site adds none."""
    agreed = terms(bits=16)
    noise = shared_noise(agreed, bound=1.0, noise_multiplier=1.3, expected_batch_size=8, values=900)
    whole = 1.3 / noise.grid
    too_small = noise.share * math.sqrt(agreed.honest / len(agreed.sites))
    for drawn in (
        noise_of_a_sum(too_small, agreed.honest), noise_of_a_sum(noise.share, agreed.honest - 1)
    ):  # fmt: skip
        found, cells = statistic(drawn, whole)
        assert found > chi2.isf(RARE, cells)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sites", [3, 10, 50])
def test_a_sum_fits_and_rounding_stays_small(sites: int, bits: int) -> None:
    agreed = terms(sites, 0, 0, bits)
    noise = shared_noise(agreed, bound=0.7, noise_multiplier=0.9, expected_batch_size=16,
                         values=5000)  # fmt: skip
    assert 8 * noise.share * math.sqrt(sites) < 2 ** (bits - 1)
    assert math.sqrt(5000) * noise.grid / 2 <= MOST_LENGTHENING * noise.bound
    assert math.log2(noise.grid) % 1 == 0
    assert sum_excess(noise.share, sites) == 0.0


def test_sixteen_bits_for_too_much_are_refused() -> None:
    with pytest.raises(RefusedError, match="use 32 bits"):
        shared_noise(terms(bits=16), bound=1.0, noise_multiplier=1.0, expected_batch_size=64,
                     values=10**7)  # fmt: skip


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(0.8, 0.02, 500), (1.5, 0.1, 200), (4, 1, 9)])
def test_its_cost_bounds_the_continuous_gaussians_and_is_not_far_above(
    sigma: float, rate: float, steps: int
) -> None:
    event = GaussianEvent(noise_multiplier=sigma, sample_rate=rate, steps=steps)
    tight, bound = epsilon([event], 1e-5), shared_epsilon(event, 1e-5)
    assert tight < bound < 1.25 * tight


def test_a_subsampled_discrete_gaussian_diverges_no_more_than_the_bound() -> None:
    """By its own probabilities, both directions, in one dimension."""
    deviation, rate = 6.0, 0.1
    most, shift = 120, 5
    whole = exact(deviation, most)
    base, moved = whole[shift:], whole[:-shift]
    base, moved = base / base.sum(), moved / moved.sum()
    mixed = (1 - rate) * base + rate * moved
    event = GaussianEvent(noise_multiplier=deviation / shift, sample_rate=rate, steps=1)
    for order in (2, 3, 8, 32):
        limit = rdp_at(event, float(order))
        for one, other in ((mixed, base), (base, mixed)):
            logs = order * np.log(one) - (order - 1) * np.log(other)
            found = (np.logaddexp.reduce(logs)) / (order - 1)
            assert found <= limit * (1 + 1e-9)


def test_what_is_not_private_costs_everything() -> None:
    seeded = GaussianEvent(noise_multiplier=1.0, sample_rate=0.1, steps=1, is_private=False)
    none = GaussianEvent(noise_multiplier=0.0, sample_rate=0.1, steps=1)
    assert shared_epsilon(seeded, 1e-5) == shared_epsilon(none, 1e-5) == math.inf
