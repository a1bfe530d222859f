"""Shared noise has the accounted distribution, and its cost is stated."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm

from cloister.errors import RefusedError
from cloister.privacy.discrete_noise import SMALLEST, discrete_gaussian
from cloister.privacy.entropy import OsEntropy, SeededEntropy
from cloister.privacy.shared_noise import (
    MOST_LENGTHENING,
    SMOOTHING,
    shared_noise,
    sum_excess,
)
from cloister.privacy.sharing import Sharing

# Above the largest statistic that a correct law gives once in a million.
RARE = 1e-6


def sharing(sites: int = 10, missing: int = 2, colluding: int = 1, bits: int = 32) -> Sharing:
    return Sharing(sites=sites, missing=missing, colluding=colluding, bits=bits)


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


def test_a_deviation_that_is_too_small_is_refused() -> None:
    for deviation in (0.0, SMALLEST * 0.99, math.nan, math.inf):
        with pytest.raises(RefusedError, match="more bits"):
            discrete_gaussian(deviation, 3, OsEntropy())


def noise_of_a_sum(share: float, sites: int, count: int = 200_000) -> np.ndarray:  # type: ignore[type-arg]
    entropy = SeededEntropy(np.random.default_rng(5))
    return np.sum([discrete_gaussian(share, count, entropy) for _ in range(sites)], axis=0)


def test_the_fewest_honest_sites_noise_is_the_plans_and_more_is_more() -> None:
    agreed = sharing(bits=16)
    noise = shared_noise(agreed, bound=1.0, noise_multiplier=1.3, expected_batch_size=8, values=900)
    whole = math.sqrt((1.3 / noise.grid) ** 2 + SMOOTHING)
    assert noise.share * math.sqrt(agreed.honest) == pytest.approx(whole)
    found, cells = statistic(noise_of_a_sum(noise.share, agreed.honest), whole)
    assert found < chi2.isf(RARE, cells)


def test_noise_that_is_shared_among_too_many_is_seen() -> None:
    """Sized for all sites instead of the fewest honest ones; or one site adds none."""
    agreed = sharing(bits=16)
    noise = shared_noise(agreed, bound=1.0, noise_multiplier=1.3, expected_batch_size=8, values=900)
    whole = 1.3 / noise.grid
    too_small = noise.share * math.sqrt(agreed.honest / agreed.sites)
    for drawn in (
        noise_of_a_sum(too_small, agreed.honest),
        noise_of_a_sum(noise.share, agreed.honest - 1),
    ):
        found, cells = statistic(drawn, whole)
        assert found > chi2.isf(RARE, cells)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sites", [3, 10, 50])
def test_a_sum_fits_and_rounding_stays_small(sites: int, bits: int) -> None:
    agreed = sharing(sites, 0, 0, bits)
    noise = shared_noise(
        agreed, bound=0.7, noise_multiplier=0.9, expected_batch_size=16, values=5000
    )
    assert sites * noise.room + 8 * noise.share * math.sqrt(sites) < 2 ** (bits - 1)
    assert noise.room * noise.grid >= 0.7 * 16 / 65  # a sixty-fourth of a site's batch at least
    assert math.sqrt(5000) * noise.grid / 2 <= MOST_LENGTHENING * noise.bound
    assert math.log2(noise.grid) % 1 == 0
    assert sum_excess(noise.share, sites) == 0.0


def test_sixteen_bits_for_too_much_are_refused() -> None:
    with pytest.raises(RefusedError, match="use 32 bits"):
        shared_noise(
            sharing(bits=16), bound=1.0, noise_multiplier=1.0, expected_batch_size=64, values=10**7
        )


def hockey_stick(one: np.ndarray, other: np.ndarray, epsilon: float) -> float:  # type: ignore[type-arg]
    """δ(ε) of two laws: what the one has more than e^ε of the other."""
    return float(np.clip(one - math.exp(epsilon) * other, 0, None).sum())


def gaussian_delta(deviation: float, shift: float, rate: float, epsilon: float) -> float:
    """The larger δ(ε) of a Poisson-subsampled Gaussian's two directions, by its densities."""
    x = np.linspace(-14 * deviation, 14 * deviation + shift, 200_001)
    base = norm.pdf(x, scale=deviation)
    mixed = (1 - rate) * base + rate * norm.pdf(x, shift, deviation)
    width = x[1] - x[0]
    return max(
        hockey_stick(mixed * width, base * width, epsilon),
        hockey_stick(base * width, mixed * width, epsilon),
    )


@pytest.mark.parametrize("rate", [1.0, 0.1])
@pytest.mark.parametrize(("deviation", "shift"), [(3.0, 1), (4.0, 3), (6.0, 7)])
def test_a_discrete_gaussian_tells_no_more_than_a_continuous_one_of_four_less_variance(
    deviation: float, shift: int, rate: float
) -> None:
    """By the laws themselves, at deviations far below those in use, where the two still differ."""
    base = exact(deviation, 200)
    moved = np.roll(base, shift)
    mixed = (1 - rate) * base + rate * moved
    smooth = math.sqrt(deviation**2 - SMOOTHING)
    for epsilon in (0.01, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0):
        discrete = max(hockey_stick(mixed, base, epsilon), hockey_stick(base, mixed, epsilon))
        assert discrete <= gaussian_delta(smooth, shift, rate, epsilon) * (1 + 1e-6) + 1e-12


def test_a_discrete_gaussian_may_tell_more_than_the_continuous_one_of_its_own_variance() -> None:
    """Why the variance is taken down before it is accounted."""
    base = exact(3.0, 200)
    apart = [
        max(
            hockey_stick(np.roll(base, 1), base, epsilon) - gaussian_delta(3.0, 1, 1.0, epsilon)
            for epsilon in np.linspace(0.01, 1.2, 60)
        )
    ]
    assert max(apart) > 1e-6


def test_the_grids_part_of_the_variance_is_added_to_what_is_accounted() -> None:
    agreed = sharing(bits=16)
    noise = shared_noise(agreed, bound=1.0, noise_multiplier=1.3, expected_batch_size=8, values=900)
    accounted = math.sqrt(agreed.honest * noise.share**2 - SMOOTHING) * noise.grid
    assert accounted == pytest.approx(1.3, rel=1e-12)
