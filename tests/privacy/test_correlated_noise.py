"""Correlated noise is exact: what is released is a function of w = Kx + z, integer for integer."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import RefusedError
from cloister.privacy.bands import coefficients, length
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.correlated_noise import (
    BandedStep,
    RecentNoise,
    add_correlated_noise,
    deviation_of,
    next_noise,
)
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.mechanism import Mechanism
from tests.support.examples import tries
from tests.support.ledgers import banded_plan, small_plan

STEPS, VALUES = 7, 2
K = coefficients(3, 9)
NONE = np.zeros(0, dtype=np.uint64)


@dataclass
class Given:
    """An entropy whose noise is given, one row a step."""

    rows: list[np.ndarray]
    is_private: bool = True
    asked: list[float] = field(default_factory=list)

    def uniform(self, count: int) -> np.ndarray:
        raise AssertionError("no batch is drawn here")

    def gaussian(self, deviation: float, count: int) -> np.ndarray:
        self.asked.append(deviation)
        return self.rows.pop(0)[:count].copy()


def summed(row: np.ndarray, bound: float = 1.0) -> ClippedSum:
    return ClippedSum((torch.from_numpy(row.copy()),), bound)


def released(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What the mechanism releases, as integers: x plus the noise that it remembers."""
    recent, entropy, found = RecentNoise(), Given(list(z)), []
    for number, row in enumerate(x):
        step = BandedStep(number, NONE, recent)
        (tensor,) = add_correlated_noise(summed(row), K, 1.0, step, entropy).tensors
        exact = row + recent.vectors[0]
        assert torch.equal(tensor, torch.from_numpy((exact * grid_of(1.0)).astype(np.float32)))
        found.append(exact)
    return np.array(found)


def function_of_w(w: list[list[int]]) -> list[list[int]]:
    """The slow twin, in integers without a size: it sees w alone."""
    given: list[list[int]] = []
    for at, row in enumerate(w):
        made = []
        for value, total in enumerate(row):
            known = sum(K[i] * given[at - i][value] for i in range(1, len(K)) if i <= at)
            made.append((total - known + K[0] // 2) // K[0])
        given.append(made)
    return given


def w_of(x: np.ndarray, z: np.ndarray) -> list[list[int]]:
    return [
        [
            sum(K[i] * int(x[at - i, value]) for i in range(len(K)) if i <= at) + int(z[at, value])
            for value in range(VALUES)
        ]
        for at in range(len(x))
    ]


integers = st.lists(
    st.lists(st.integers(-(2**40), 2**40), min_size=VALUES, max_size=VALUES),
    min_size=STEPS,
    max_size=STEPS,
).map(lambda rows: np.array(rows, dtype=np.int64))


@settings(max_examples=tries(60), deadline=None)
@given(integers, integers, integers)
def test_a_release_is_a_function_of_w_alone(x: np.ndarray, z: np.ndarray, d: np.ndarray) -> None:
    found = released(x, z)
    assert found.tolist() == function_of_w(w_of(x, z))
    # Other sums with noise that hides the difference give the same w, and the same releases.
    moved = np.array(w_of(d, np.zeros_like(d)), dtype=np.int64)
    assert (released(x + d, z - moved) == found).all()


@settings(max_examples=tries(20), deadline=None)
@given(integers, integers, st.sets(st.integers(0, STEPS - 1), max_size=STEPS - 1))
def test_steps_that_nobody_saw_leave_the_others_their_law(
    x: np.ndarray, z: np.ndarray, missing: set[int]
) -> None:
    """A step that was charged and never released counts as one without gradient."""
    unseen = sorted(missing)
    whole = released(np.where(np.isin(np.arange(STEPS), unseen)[:, None], 0, x), z)
    recent, entropy = RecentNoise(), Given(list(z))
    for number in (n for n in range(STEPS) if n not in missing):
        add_correlated_noise(summed(x[number]), K, 1.0, BandedStep(number, NONE, recent), entropy)
        assert (x[number] + recent.vectors[0] == whole[number]).all()
        assert (recent.step, len(recent.vectors)) == (number + 1, min(number + 1, len(K) - 1))


def test_the_noise_is_scaled_to_what_a_unit_moves_in_all_places() -> None:
    """A unit's step moves w by k_0 x, …, k_(b−1) x: a vector of length ‖k‖ |x|."""
    entropy = Given([np.zeros(2, dtype=np.int64)])
    add_correlated_noise(summed(np.zeros(2, dtype=np.int64), 8.0), K, 0.7, step(0), entropy)
    in_steps = 0.7 * float(np.linalg.norm(K)) * 8.0 / grid_of(8.0)
    assert entropy.asked == [pytest.approx(np.sqrt(in_steps**2 + 4), rel=1e-15)]
    assert length(K) == pytest.approx(float(np.linalg.norm(K)))


def step(number: int) -> BandedStep:
    return BandedStep(number, NONE, RecentNoise())


def test_vectors_that_fall_out_of_use_are_overwritten() -> None:
    recent = RecentNoise()
    first = next_noise(K, deviation_of(K, 1.0, 1.0), recent, 50, OsEntropy())
    assert np.abs(first).min() > 0
    for _ in range(2):
        next_noise(K, deviation_of(K, 1.0, 1.0), recent, 50, OsEntropy())
    assert not first.any()
    assert len(recent.vectors) == 2


def test_noise_of_another_time_or_shape_is_refused() -> None:
    plan = banded_plan()
    late = BandedStep(1, NONE, RecentNoise(2, [np.zeros(2, dtype=np.int64)] * 2))
    with pytest.raises(RefusedError, match="from another time"):
        add_correlated_noise(summed(np.zeros(2, dtype=np.int64)), K, 1.0, late, OsEntropy())
    for recent in (RecentNoise(2, [np.zeros(2, dtype=np.int64)]), RecentNoise(1, [])):
        with pytest.raises(RefusedError, match="not that of this plan"):
            next_noise(K, 1e6, recent, 2, OsEntropy())
    coarse = ClippedSum((torch.zeros(2, dtype=torch.int64),), 1.0, 2.0**-10)
    with pytest.raises(RefusedError, match="default grid"):
        add_correlated_noise(coarse, K, 1.0, step(0), OsEntropy())
    for wrong in (
        lambda: Mechanism(plan, OsEntropy()),
        lambda: Mechanism(small_plan(), OsEntropy(), step(0)),
    ):
        with pytest.raises(RefusedError, match="step by step"):
            wrong()
    with pytest.raises(RefusedError, match="5 units with 0 groups"):
        Mechanism(plan, OsEntropy(), step(0)).draw(5)


def test_a_step_draws_from_its_own_group_only() -> None:
    plan, marks = banded_plan(), np.arange(900, dtype=np.uint64)
    seen = np.zeros(900, dtype=np.int64)
    for number in range(60):
        drawn = Mechanism(plan, OsEntropy(), BandedStep(number, marks, RecentNoise())).draw(900)
        assert set(drawn % 3) <= {number % 3}
        seen[drawn] += 1
    # 20 steps of a group at 0.3: 6 on average over 900 units, deviation 0.07; six of them.
    assert abs(float(seen.mean()) - 6) < 0.42
