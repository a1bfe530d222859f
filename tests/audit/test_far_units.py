"""The sampler works for sites with far more units than declared, and for counters of any width.

Ward sizes are private, so no plan bounds them: what holds at the declared number must hold at a
hundred times as many units, and for units that are 2^19 places apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from cloister.audit.sampler_tests import distance_p, total_p
from cloister.audit.statistics import LEVEL
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.sampling import poisson_sample
from tests.support.ledgers import small_plan

Array = np.ndarray
Sample = Callable[[int, float], Array]
PLAN = replace(small_plan(), public_records=4000, expected_batch_size=20, local_steps=8)
FAR = 2**20 + 7
SIZES = (10 * PLAN.public_records, 100 * PLAN.public_records, FAR)
RATE = PLAN.sample_rate


def by_the_mechanism(units: int, rate: float) -> Array:
    return Mechanism(PLAN, OsEntropy()).draw(units)


def by_the_sampler(units: int, rate: float) -> Array:
    return poisson_sample(units, rate, OsEntropy())


def worst(sample: Sample, units: int, rate: float = RATE, draws: int = 4) -> float:
    batches = [sample(units, rate) for _ in range(draws)]
    sizes = np.array([len(batch) for batch in batches])
    return min(*total_p(sizes, units, rate), *distance_p(batches, units, rate))


@pytest.mark.parametrize("sample", [by_the_mechanism, by_the_sampler])
@pytest.mark.parametrize("units", SIZES)
def test_sizes_and_pairs_hold_at_any_number_of_units(sample: Sample, units: int) -> None:
    assert worst(sample, units) > LEVEL


def capped(units: int, rate: float) -> Array:
    return by_the_mechanism(units, rate)[: 6 * PLAN.expected_batch_size + 16]


def repeated_after(period: int) -> Sample:
    def sample(units: int, rate: float) -> Array:
        coins = OsEntropy().uniform(min(units, period))
        return np.flatnonzero(np.resize(coins, units) < rate)

    return sample


def opposed(units: int, rate: float) -> Array:
    """Units 2^19 apart by one coin, turned round: both at a rate of a half, never together."""
    coins = OsEntropy().uniform(min(units, 2**19))
    return np.flatnonzero(np.concatenate([coins, 1 - coins])[:units] < rate)


BROKEN: dict[str, tuple[Sample, int, float]] = {
    "capped": (capped, SIZES[1], RATE),
    **{
        f"repeated after 2^{power}": (repeated_after(2**power), FAR, RATE)
        for power in (12, 15, 16, 18, 19)
    },
    "opposed": (opposed, 2**20, 0.5),
}


@pytest.mark.parametrize(("sample", "units", "rate"), BROKEN.values(), ids=BROKEN.keys())
def test_each_fault_that_waits_for_a_size_is_seen(sample: Sample, units: int, rate: float) -> None:
    assert worst(sample, units, rate) < LEVEL


@pytest.mark.parametrize("units", [1, 2, 3, 8, 100])
def test_the_law_by_distances_is_no_smaller_than_it_says(units: int) -> None:
    """Bernstein's bound is never below the chance itself; at small sites every sum is looked at."""
    draw = np.random.default_rng(units)
    smallest = []
    for _ in range(300):
        batches: Sequence[Array] = [np.flatnonzero(draw.random(units) < 0.2) for _ in range(3)]
        smallest.append(min(distance_p(batches, units, 0.2), default=1.0))
    tests = 2 * max(units, 2).bit_length()
    assert np.mean(np.array(smallest) <= 0.05 / tests) <= 0.05 + 6 * np.sqrt(0.05 / 300)


def test_the_distances_are_all_powers_of_two_that_fit() -> None:
    """One unit repeated at the largest distance is in the last sum, and in no other."""
    units = 2**12 + 5
    far = [np.array([1, 1 + 2**12])] * 60
    near = [np.array([1, 2])] * 60
    rate = 1e-3
    assert distance_p(far, units, rate)[-1] < LEVEL < min(distance_p(far, units, rate)[:-1])
    assert min(distance_p(near, units, rate)[:2]) < LEVEL < min(distance_p(near, units, rate)[2:])
