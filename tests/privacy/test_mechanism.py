"""Sampling, clipping and noise follow their laws, and broken ones are found."""

import math
import os
import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.errors import RefusedError
from cloister.privacy.clipping import MARGIN, ClippedSum, clip_and_sum, empty_sum
from cloister.privacy.entropy import Entropy, OsEntropy, SeededEntropy
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.noise import BLOCK, add_noise
from cloister.privacy.sampling import poisson_sample
from tests.support.entropy import normals

# Two-sided level of every test of a law below: one false alarm in a million runs.
ALPHA = 1e-6


def within(found: float, mean: float, deviation: float) -> bool:
    return abs(found - mean) <= float(stats.norm.isf(ALPHA / 2)) * deviation


# --- sampling -------------------------------------------------------------------------------

COUNT, RATE, DRAWS = 40, 0.2, 4000


def inclusions(sample: Callable[[], np.ndarray]) -> np.ndarray:
    """1 where a record was in a batch, [DRAWS, COUNT]."""
    drawn = np.zeros((DRAWS, COUNT))
    for row in drawn:
        row[sample()] = 1
    return drawn


def follows_poisson_sampling(drawn: np.ndarray) -> bool:
    """Each record's count is Binomial(T, q), and batch sizes vary as independent draws do."""
    counts = drawn.sum(axis=0)
    rates = all(stats.binomtest(int(c), DRAWS, RATE).pvalue > ALPHA / COUNT for c in counts)
    sizes = drawn.sum(axis=1)
    # Variance of Binomial(n, q); its sampling deviation is about var·√(2/T).
    variance = COUNT * RATE * (1 - RATE)
    return rates and within(sizes.var(ddof=1), variance, variance * math.sqrt(2 / DRAWS))


def test_the_sampler_is_poisson() -> None:
    entropy = OsEntropy()
    assert follows_poisson_sampling(inclusions(lambda: poisson_sample(COUNT, RATE, entropy)))


def test_a_fixed_size_sampler_is_caught() -> None:
    rng = np.random.default_rng(0)
    size = int(COUNT * RATE)
    assert not follows_poisson_sampling(inclusions(lambda: rng.choice(COUNT, size, replace=False)))


def steps_are_independent(drawn: np.ndarray) -> bool:
    """How often a record is in two batches running."""
    both = (drawn[1:] * drawn[:-1]).mean()
    pairs = (DRAWS - 1) * COUNT
    # A pair has a batch in common with the pair before it and with the one after it.
    variance = RATE**2 * (1 - RATE**2) + 2 * (RATE**3 - RATE**4)
    return within(both, RATE**2, math.sqrt(variance / pairs))


def pairs_are_independent(drawn: np.ndarray) -> bool:
    """How often two records are in one batch, for every pair."""
    together = drawn.T @ drawn
    return all(
        stats.binomtest(int(together[i, j]), DRAWS, RATE**2).pvalue > ALPHA / COUNT**2
        for i in range(COUNT)
        for j in range(i)
    )


def test_records_and_steps_are_independent() -> None:
    entropy = OsEntropy()
    drawn = inclusions(lambda: poisson_sample(COUNT, RATE, entropy))
    assert steps_are_independent(drawn)
    assert pairs_are_independent(drawn)


def test_a_shuffling_sampler_is_caught() -> None:
    """Epochs over a shuffled list, as data loaders do: right rates, dependent steps."""
    rng = np.random.default_rng(0)
    size = int(COUNT * RATE)
    left: list[int] = []

    def sample() -> np.ndarray:
        nonlocal left
        if not left:
            left = list(rng.permutation(COUNT))
        batch, left = left[:size], left[size:]
        return np.array(batch)

    drawn = inclusions(sample)
    assert not steps_are_independent(drawn)
    assert not follows_poisson_sampling(drawn)


def test_records_that_come_in_pairs_are_caught() -> None:
    rng = np.random.default_rng(0)

    def sample() -> np.ndarray:
        return np.flatnonzero(np.repeat(rng.random(COUNT // 2) < RATE, 2))

    assert not pairs_are_independent(inclusions(sample))


def test_tiny_rates_are_exact() -> None:
    # 24-bit uniforms would draw one of 2e7 at a rate of 1e-9 about 1.2 times (6.2e-8 each).
    drawn = sum(len(poisson_sample(10_000_000, 1e-9, OsEntropy())) for _ in range(2))
    assert drawn <= stats.poisson.isf(ALPHA, 0.02)


def test_uniforms_lie_below_one_on_a_grid_of_53_bits() -> None:
    uniforms = OsEntropy().uniform(100_000)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert np.array_equal(uniforms * 2**53, np.floor(uniforms * 2**53))
    assert stats.kstest(uniforms, "uniform").pvalue > ALPHA


# --- clipping -------------------------------------------------------------------------------


def in_units(total: ClippedSum) -> list[float]:
    """All coordinates of a sum, off its grid."""
    return torch.cat([t.flatten() for t in total.tensors]).double().mul(total.grid).tolist()


values = st.one_of(
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-30, 0.0]),
)


@given(
    st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-3, 100),
)
def test_no_record_contributes_more_than_the_bound(rows: list[list[float]], bound: float) -> None:
    gradient = torch.tensor(rows)
    for row in gradient:
        total = clip_and_sum([row[None, :2], row[None, 2:]], bound)
        assert math.hypot(*in_units(total)) <= bound


@given(
    st.lists(st.lists(values, min_size=2, max_size=2), max_size=5),
    st.lists(values, min_size=2, max_size=2),
)
def test_adding_any_record_moves_the_sum_by_at_most_the_bound(
    rows: list[list[float]], extra: list[float]
) -> None:
    without = clip_and_sum([torch.tensor(rows).reshape(len(rows), 2)], 1.0)
    with_it = clip_and_sum([torch.tensor([*rows, extra])], 1.0)
    moved = with_it.tensors[0] - without.tensors[0]  # integers: exact, in any order
    assert math.hypot(*(moved * with_it.grid).tolist()) <= 1.0


def test_short_gradients_pass_unchanged() -> None:
    gradient = torch.tensor([[0.3, 0.4]])
    assert in_units(clip_and_sum([gradient], 1.0)) == pytest.approx(
        gradient[0].tolist(), abs=2**-31
    )


def test_the_norm_is_over_all_parameters_at_once() -> None:
    # ‖(3, 4)‖ = 5 although each part is short of it: both are scaled by 1/5.
    total = clip_and_sum([torch.tensor([[3.0]]), torch.tensor([[4.0]])], 1.0)
    aimed = 1 - MARGIN
    assert in_units(total) == pytest.approx([0.6 * aimed, 0.8 * aimed], rel=2e-5)


def test_a_record_that_is_not_finite_counts_as_zero_and_leaves_the_others() -> None:
    rows = torch.tensor([[math.nan, 1.0], [0.6, 0.0], [math.inf, 0.0], [1e30, 0.0]])
    assert in_units(clip_and_sum([rows], 1.0)) == pytest.approx([0.6, 0.0])


def test_half_precision_is_clipped_in_float32() -> None:
    rows = torch.full((1, 1000), 0.7, dtype=torch.bfloat16)
    assert math.hypot(*in_units(clip_and_sum([rows], 1.0))) <= 1.0


def test_integer_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        clip_and_sum([torch.ones(2, 3, dtype=torch.int32)], 1.0)


@given(
    st.lists(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3), min_size=2, max_size=9),
    st.randoms(),
)
def test_the_sum_does_not_depend_on_order_or_on_how_it_is_cut(
    rows: list[list[float]], random: random.Random
) -> None:
    whole = clip_and_sum([torch.tensor(rows)], 1.0)
    shuffled = random.sample(rows, len(rows))
    cut = random.randrange(1, len(rows))
    parts = [clip_and_sum([torch.tensor(part)], 1.0) for part in (shuffled[:cut], shuffled[cut:])]
    assert torch.equal((parts[0] + parts[1]).tensors[0], whole.tensors[0])


def test_many_coordinates_keep_the_bound() -> None:
    # Rounding to the grid lengthens a vector by up to √d · γ/2; the clip leaves room for it.
    rows = torch.full((1, 1_000_000), 1.0)
    total = clip_and_sum([rows], 1e-3)
    squares = (total.tensors[0].double() * total.grid).square().sum()
    assert 0.9999 * (1 - MARGIN) * 1e-3 < math.sqrt(float(squares)) <= 1e-3


def test_sums_of_different_bounds_do_not_add() -> None:
    parameter = [torch.zeros(2)]
    with pytest.raises(ValueError, match="differ"):
        empty_sum(parameter, 1.0) + empty_sum(parameter, 2.0)


# --- noise ----------------------------------------------------------------------------------

DIMENSION = 100_000


def noise_of(mechanism: Callable[[ClippedSum, float, Entropy], object]) -> np.ndarray:
    clipped = empty_sum([torch.zeros(DIMENSION)], 0.5)
    released = mechanism(clipped, 2.0, OsEntropy())
    return np.asarray(released.tensors[0].double())  # type: ignore[attr-defined]


def follows_the_noise_law(noise: np.ndarray, deviation: float) -> bool:
    """χ² band of the variance and Kolmogorov-Smirnov, each at level ALPHA."""
    statistic = float(np.square(noise / deviation).sum())
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], len(noise))
    normal = stats.kstest(noise / deviation, "norm").pvalue > ALPHA
    return bool(low <= statistic <= high and normal)


def test_noise_is_gaussian_at_multiplier_times_bound() -> None:
    # σ = 2 on a bound of 0.5: deviation 1.
    assert follows_the_noise_law(noise_of(add_noise), 1.0)


@pytest.mark.parametrize("bound", [1e-6, 0.999, 1e6])
def test_the_most_noise_that_is_taken_still_is_noise(bound: float) -> None:
    clipped = empty_sum([torch.zeros(DIMENSION)], bound)
    noise = add_noise(clipped, MOST_NOISE, OsEntropy()).tensors[0].double().numpy()
    assert follows_the_noise_law(noise, MOST_NOISE * bound)


@pytest.mark.parametrize("sigma", [MOST_NOISE * 1.01, 1e9, 1e30, math.inf, math.nan, -1.0])
def test_noise_beyond_the_integers_is_refused(sigma: float) -> None:
    """int64 would overflow to one value for all: no noise at all."""
    with pytest.raises(RefusedError, match="integers"):
        add_noise(empty_sum([torch.zeros(3)], 1.0), sigma, OsEntropy())


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.8, 1.25, 1.5])
def test_a_wrong_scale_is_caught(factor: float) -> None:
    noise = noise_of(lambda c, sigma, entropy: add_noise(c, sigma * factor, entropy))
    assert not follows_the_noise_law(noise, 1.0)


def test_noise_is_never_repeated() -> None:
    clipped = empty_sum([torch.zeros(50), torch.zeros(50)], 1.0)
    entropy = OsEntropy()
    drawn = [v for _ in range(20) for t in add_noise(clipped, 1.0, entropy).tensors for v in t]
    # 2,000 float32 values; two equal by chance would need a tie among 2e6 pairs of ~2²³ values.
    assert len({float(v) for v in drawn}) >= len(drawn) - 5


def test_coordinates_are_uncorrelated() -> None:
    noise = noise_of(add_noise)
    correlation = float(np.corrcoef(noise[:-1], noise[1:])[0, 1])
    assert within(correlation, 0.0, 1 / math.sqrt(DIMENSION))


def test_each_block_of_a_large_tensor_has_noise_of_its_own() -> None:
    clipped = empty_sum([torch.zeros(2, BLOCK + 3)], 0.5)
    noise = add_noise(clipped, 2.0, OsEntropy()).tensors[0].double().flatten().numpy()
    first, second, last = np.split(noise, [BLOCK, 2 * BLOCK])
    assert follows_the_noise_law(first, 1.0)
    assert follows_the_noise_law(second, 1.0)
    assert within(float(np.corrcoef(first, second)[0, 1]), 0.0, 1 / math.sqrt(BLOCK))
    assert len(last) == 6
    # A zero, or one value of before in its place, comes once in 2²³ draws or so.
    assert last.all()
    assert not np.isin(last, [*first[:6], *first[-6:], *second[:6], *second[-6:]]).any()


def test_forked_processes_draw_different_noise() -> None:
    entropy = OsEntropy()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, entropy.gaussian(1e6, 4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 32) != entropy.gaussian(1e6, 4).tobytes()


def test_private_entropy_is_not_serialised() -> None:
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(OsEntropy())


def test_seeded_entropy_says_that_it_is_not_private() -> None:
    assert OsEntropy().is_private
    assert not SeededEntropy(np.random.default_rng(0)).is_private


def test_without_noise_nothing_is_drawn_or_changed() -> None:
    clipped = clip_and_sum([torch.tensor([[0.3]])], 1.0)
    assert add_noise(clipped, 0.0, OsEntropy()).tensors[0].tolist() == pytest.approx([0.3])


def off_the_grid(released: torch.Tensor, grid: float) -> int:
    steps = released.double() / grid
    return int((steps != steps.round()).sum())


def test_no_release_shows_whether_its_sum_was_zero() -> None:
    # Floats near 0 are finer than floats near 0.3: plain float noise on 0.3 never lands on most
    # of the values that noise on 0 takes (Mironov 2012), so one low bit would tell them apart.
    zero = empty_sum([torch.zeros(50_000)], 1.0)
    shifted = ClippedSum((torch.full((50_000,), int(0.3 / zero.grid)),), 1.0)
    for clipped in (zero, shifted):
        assert off_the_grid(add_noise(clipped, 1.0, OsEntropy()).tensors[0], zero.grid) == 0
    plain = torch.from_numpy(normals(50_000)).float()
    assert off_the_grid(plain, zero.grid) > 100  # the float mechanism, caught


def test_every_small_release_can_come_from_either_sum() -> None:
    # On a coarse grid all values within two deviations are hit from both sums.
    class Coarse(ClippedSum):
        @property
        def grid(self) -> float:
            return 2.0**-5

    reached = []
    for start in (0, 9):
        clipped = Coarse((torch.full((200_000,), start),), 1.0)
        reached.append(set((add_noise(clipped, 1.0, OsEntropy()).tensors[0] * 32).tolist()))
    for release in range(-55, 56):
        assert float(release) in reached[0] & reached[1]


def test_noise_has_the_tails_of_a_gaussian() -> None:
    # Kurtosis of n normals deviates by about √(24/n).
    kurtosis = float(stats.kurtosis(noise_of(add_noise)))
    assert within(kurtosis, 0.0, math.sqrt(24 / DIMENSION))


def test_steps_and_sites_draw_uncorrelated_noise() -> None:
    draws = [noise_of(add_noise) for _ in range(4)]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            correlation = float(np.corrcoef(one, other)[0, 1])
            assert within(correlation, 0.0, 1 / math.sqrt(DIMENSION))
