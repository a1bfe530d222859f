"""Sums that no order changes."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.adapter.tensors import Adapter
from cloister.strategies import exact_sum
from cloister.strategies.exact_sum import ExactSum, RunningMean

numbers = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(numbers, min_size=1, max_size=12), st.randoms())
def test_a_sum_is_exact_in_any_order(values: list[float], random: object) -> None:
    there, back = ExactSum(), ExactSum()
    for value in values:
        there.add(np.array([value]))
    random.shuffle(values)  # type: ignore[attr-defined]
    for value in values:
        back.add(np.array([value]))
    found = float(np.asarray(there.value()).ravel()[0])
    assert found == float(np.asarray(back.value()).ravel()[0])
    exact = sum((Fraction(value) for value in values), Fraction(0))
    # Two roundings to float64: of the pieces' sum, and where pieces cancel, of the last of them.
    assert math.isclose(found, float(exact), rel_tol=2e-16 * 4, abs_tol=0.0)


def test_what_cancels_leaves_the_small_part() -> None:
    running = RunningMean({})
    for site, value in {"a": 2.0**100, "b": 1.0, "c": -(2.0**100)}.items():
        running.add(site, Adapter({"x": np.array([value])}))
    assert running.mean()["x"].tolist() == [np.float32(1 / 3)]


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_running_mean_is_the_mean(rows: np.ndarray) -> None:
    weights = {"0": 3.0, "2": 0.25}
    running = RunningMean(weights)
    for index, row in enumerate(rows):
        running.add(str(index), Adapter({"x": row}))
    expected = np.average(rows.astype(np.float64), axis=0, weights=[3.0, 1.0, 0.25])
    assert np.allclose(running.mean()["x"], expected, rtol=1e-6, atol=1e-30)


def test_its_memory_does_not_grow_with_sites() -> None:
    running, rng = RunningMean({}), np.random.default_rng(0)
    for site in range(100):
        running.add(str(site), Adapter({"x": rng.normal(size=50)}))
    assert all(len(kept._pieces) <= 4 for kept in running._sums.values())


def test_other_shapes_and_nothing_at_all_are_refused() -> None:
    running = RunningMean({})
    with pytest.raises(ValueError, match="no update"):
        running.mean()
    running.add("a", Adapter({"x": np.ones(2)}))
    with pytest.raises(ValueError, match="do not fit"):
        running.add("b", Adapter({"x": np.ones(3)}))
    tiny = ExactSum()
    tiny.add(np.array([5e-324]))  # below what any weighted update holds: zero, and no endless loop
    assert tiny.value() == 0.0


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_parts_give_the_same_bits_as_the_whole(rows: np.ndarray) -> None:
    means = []
    for part in (2**20, 2):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(exact_sum, "PART", part)
            running = RunningMean({"1": 0.3})
            for index, row in enumerate(rows):
                running.add(str(index), Adapter({"x": row}))
            means.append(running.mean()["x"].tobytes())
    assert means[0] == means[1]


def test_a_mean_takes_little_memory_beside_its_sum() -> None:
    """Two sums of 8 bytes a value, whatever the number of sites, and no copy of an update."""
    rng, values = np.random.default_rng(0), 4_000_000
    updates = [
        Adapter({"x": rng.normal(size=values).astype(np.float32) * np.float32(1e-3)})
        for _ in range(2)
    ]
    tracemalloc.start()
    try:
        running = RunningMean({})
        for site in range(4):
            running.add(str(site), updates[site % 2])
        _, adding = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    parts = 6 * 8 * exact_sum.PART  # six temporary arrays
    assert adding <= 2 * 8 * values + values + parts  # and one byte: whether it is finite
