"""Broken samplers, whose batches are not Poisson samples."""

from collections.abc import Callable

import numpy as np
import pytest

from cloister.errors import RefusedError
from cloister.privacy import mechanism
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import add_noise
from tests.support.mutants.registry import mutant

Array = np.ndarray
SOUND = mechanism.poisson_sample


def sample_is(patch: pytest.MonkeyPatch, broken: Callable[[int, float, Entropy], Array]) -> None:
    patch.setattr(mechanism, "poisson_sample", broken)


def random() -> np.random.Generator:
    return np.random.default_rng()


@mutant("sampler", "sampling across steps")
def shuffled_batches(patch: pytest.MonkeyPatch) -> None:
    left: dict[int, list[int]] = {}

    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        size, rest = round(count * rate), left.get(count, [])
        if len(rest) < size:
            rest = list(random().permutation(count))
        batch, left[count] = rest[:size], rest[size:]
        return np.array(batch, dtype=np.int64)

    sample_is(patch, sample)


@mutant("sampler", "batch sizes")
def fixed_size_batches(patch: pytest.MonkeyPatch) -> None:
    sample_is(patch, lambda n, q, e: random().choice(n, round(n * q), replace=False))


@mutant("sampler", "sampling at real sizes")
def fixed_size_batches_above_a_size(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        if count <= 64:
            return SOUND(count, rate, entropy)
        return random().choice(count, round(count * rate), replace=False)

    sample_is(patch, sample)


@mutant("sampler", "batch form")
def batches_with_replacement(patch: pytest.MonkeyPatch) -> None:
    sample_is(patch, lambda n, q, e: random().integers(0, n, random().binomial(n, q)))


@mutant("sampler", "sampling at real sizes")
def batches_capped_at_twice_the_mean(patch: pytest.MonkeyPatch) -> None:
    """It couples the units of sites that hold more than they declared."""

    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        batch = SOUND(count, rate, entropy)
        return batch[: 2 * 10] if count > 100 else batch  # the plan's expected batch size is 10

    sample_is(patch, sample)


@mutant("sampler", "sampling at real sizes")
def batches_capped_at_six_times_the_mean(patch: pytest.MonkeyPatch) -> None:
    """So that memory is bounded; only a site of many times what it declared comes to it."""
    draw = mechanism.Mechanism.draw
    patch.setattr(
        mechanism.Mechanism,
        "draw",
        lambda self, count: draw(self, count)[: 6 * self.plan.expected_batch_size + 16],
    )


@mutant("sampler", "sampling at real sizes")
def units_so_many_apart_drawn_together(patch: pytest.MonkeyPatch) -> None:
    """Coins for 2^18 units, and the same ones for all beyond."""

    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        coins = entropy.uniform(min(count, 2**18))
        return np.flatnonzero(np.resize(coins, count) < rate)

    sample_is(patch, sample)


@mutant("sampler", "batch sizes")
def batches_drawn_anew_where_large(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        most = count * rate + 2 * np.sqrt(count * rate)
        while len(batch := SOUND(count, rate, entropy)) > most:
            pass
        return batch

    sample_is(patch, sample)


@mutant("sampler", "sampling at real sizes")
def empty_batches_drawn_anew(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        while not len(batch := SOUND(count, rate, entropy)) and count:
            pass
        return batch

    sample_is(patch, sample)


@mutant("sampler", "sampling rate")
def rate_doubled(patch: pytest.MonkeyPatch) -> None:
    sample_is(patch, lambda n, q, e: SOUND(n, 2 * q, e))


@mutant("sampler", "sampling at real sizes")
def rate_from_the_number_of_records(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        return SOUND(count, min(1.0, 10 / max(count, 1)), entropy)

    sample_is(patch, sample)


@mutant("sampler", "sampling rate")
def first_unit_in_every_batch(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        return np.union1d(SOUND(count, rate, entropy), np.arange(min(count, 1)))

    sample_is(patch, sample)


@mutant("sampler", "sampling rate")
def last_unit_in_no_batch(patch: pytest.MonkeyPatch) -> None:
    sample_is(patch, lambda n, q, e: SOUND(max(n - 1, 0), q, e))


@mutant("sampler", "sampling of pairs")
def pairs_drawn_together(patch: pytest.MonkeyPatch) -> None:
    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        halves = entropy.uniform(-(-count // 2)) < rate
        return np.flatnonzero(np.repeat(halves, 2)[:count])

    sample_is(patch, sample)


@mutant("sampler", "sampling across steps")
def steps_5_to_8_repeat_the_batches_of_1_to_4(patch: pytest.MonkeyPatch) -> None:
    kept: dict[int, list[Array]] = {}

    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        before = kept.setdefault(count, [])
        if len(before) == 8:
            before.clear()
        before.append(before[-4] if len(before) >= 4 else SOUND(count, rate, entropy))
        return before[-1]

    sample_is(patch, sample)


@mutant("sampler", "sampling across steps")
def no_unit_in_two_batches_running(patch: pytest.MonkeyPatch) -> None:
    last: dict[int, Array] = {}

    def sample(count: int, rate: float, entropy: Entropy) -> Array:
        batch = np.setdiff1d(SOUND(count, rate / (1 - rate), entropy), last.get(count, []))
        last[count] = batch
        return batch.astype(np.int64)

    sample_is(patch, sample)


@mutant("sampler", "steps")
def a_step_too_many(patch: pytest.MonkeyPatch) -> None:
    draw = mechanism.Mechanism.draw

    def endless(self: mechanism.Mechanism, count: int) -> Array:
        self._drawn = 0
        return draw(self, count)

    patch.setattr(mechanism.Mechanism, "draw", endless)
    patch.setattr(
        mechanism.Mechanism,
        "release",
        lambda self, clipped: add_noise(clipped, self.plan.noise_multiplier, self._entropy),
    )


@mutant("sampler", "steps")
def a_step_too_many_at_small_sites(patch: pytest.MonkeyPatch) -> None:
    draw = mechanism.Mechanism.draw

    def endless(self: mechanism.Mechanism, count: int) -> Array:
        try:
            return draw(self, count)
        except RefusedError:
            if count > 1:
                raise
            return np.zeros(0, dtype=np.int64)

    patch.setattr(mechanism.Mechanism, "draw", endless)
