"""Sums that no order changes."""

import itertools
import math
import random
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
def test_a_sum_is_exact_in_any_order(values: list[float], random: random.Random) -> None:
    there, back = ExactSum(), ExactSum()
    for value in values:
        there.add(np.array([value]))
    random.shuffle(values)
    for value in values:
        back.add(np.array([value]))
    found = float(np.asarray(there.value()).ravel()[0])
    assert found == float(np.asarray(back.value()).ravel()[0])
    exact = sum((Fraction(value) for value in values), Fraction(0))
    # Two roundings to float64: of the pieces' sum, and where pieces cancel, of the last of them.
    assert math.isclose(found, float(exact), rel_tol=2e-16 * 4, abs_tol=0.0)


# Each with 24 bits, so that the unit rises by 16, 32 and 48 bits when bits below it are there.
GROWING = [float(np.float32(1 + 2.0**-23) * np.float32(2.0**e)) for e in range(-120, 120, 8)]
FAR = [2.0**-149, 2.0**127 * (2 - 2.0**-23), 3.0 * 2.0**-140, 1.1754942e-38, 1.0, 2.0**43, 1e-30]


@pytest.mark.parametrize("signs", [(1,), (-1,), (1, -1, -1), (-1, 1)])
@pytest.mark.parametrize(
    "values",
    [
        *(GROWING[::step] for step in (1, -1, 2, 3, 5)),
        FAR,
        FAR[::-1],
        [2.0**90, *[2.0**40 - 2.0**17] * 9, 2.0**93],  # what carries into the highest integers
        [2.0**90, 2.0**40, -(2.0**90), 2.0**110],  # nothing but lower bits is left
    ],
)
def test_no_bit_is_ever_lost(values: list[float], signs: tuple[int, ...]) -> None:
    """What is added and then taken away leaves nothing: or what else was added, to the last bit."""
    rows = [
        np.array([sign * one, one])
        for one, sign in zip(values, itertools.cycle(signs), strict=False)
    ]
    total, exact = ExactSum(), Fraction(0)
    for row in rows:
        total.add(row)
        exact += Fraction(float(row[0]))
        found = Fraction(float(np.asarray(total.value())[0]))
        assert abs(found - exact) <= abs(exact) * Fraction(1, 2**51)
    for row in sorted(rows, key=lambda row: row[1]):
        total.add(-row)
    assert np.asarray(total.value()).tolist() == [0.0, 0.0]
    total.add(np.array([-(2.0**-149), 2.0**-149]))
    assert np.asarray(total.value()).tolist() == [-(2.0**-149), 2.0**-149]


@pytest.mark.parametrize("exponent", range(-60, 60, 7))
def test_as_many_arrays_fit_as_may_be_added(exponent: int) -> None:
    total = ExactSum()
    total.add(np.array([-(2.0**exponent), 2.0**exponent * (1 - 2.0**-24)]))
    assert int(np.abs(total._parts[0].high).max()) * exact_sum.MOST_ADDED < 2**63
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exact_sum, "MOST_ADDED", 1)
        with pytest.raises(ValueError, match="more than 1 array"):
            total.add(np.ones(2))


@pytest.mark.parametrize(
    ("bad", "weight"), [(np.nan, 1.0), (np.inf, 0.5), (-np.inf, 1.0), (-1e38, 1e300)]
)
def test_what_is_not_finite_is_refused_and_nothing_of_it_is_added(
    bad: float, weight: float
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exact_sum, "PART", 2)
        total = ExactSum()
        total.add(np.float32([1, 2, 3]))
        with pytest.raises(ValueError, match="must be finite"):
            total.add(np.float32([1, 2, bad]), weight)
        assert np.asarray(total.value()).tolist() == [1, 2, 3]


def test_arrays_of_any_form_keep_their_shape_and_an_adapter_takes_a_mean_as_it_is() -> None:
    for array in (np.float32(3.5), np.zeros((0, 2), np.float32), np.ones((4, 3)).T[::2]):
        total = ExactSum()
        given = np.asarray(array)
        total.add(given)
        assert np.asarray(total.value()).tolist() == given.tolist()
        mean = total.take(1.0)
        assert mean.shape == given.shape
        assert mean.tolist() == given.tolist()
        assert Adapter({"x": mean})["x"] is mean
        with pytest.raises(ValueError, match="nothing was added"):
            total.take(1.0)


def test_what_cancels_leaves_the_small_part() -> None:
    running = RunningMean({})
    for site, value in {"a": 2.0**100, "b": 1.0, "c": -(2.0**100)}.items():
        running.add(site, Adapter({"x": np.array([value])}))
    assert running.take()["x"].tolist() == [np.float32(1 / 3)]


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_running_mean_is_the_mean(rows: np.ndarray) -> None:
    weights = {"0": 3.0, "2": 0.25}
    running = RunningMean(weights)
    for index, row in enumerate(rows):
        running.add(str(index), Adapter({"x": row}))
    expected = np.average(rows.astype(np.float64), axis=0, weights=[3.0, 1.0, 0.25])
    assert np.allclose(running.take()["x"], expected, rtol=1e-6, atol=1e-30)


def test_its_memory_does_not_grow_with_sites() -> None:
    running, rng = RunningMean({}), np.random.default_rng(0)
    for site in range(100):
        running.add(str(site), Adapter({"x": rng.normal(size=50)}))
    assert all(len(part.low) <= 2 for kept in running._sums.values() for part in kept._parts)


@given(st.lists(st.tuples(*[numbers] * 3), min_size=1, max_size=8), st.randoms())
def test_sums_of_whole_arrays_are_exact_and_the_same_bits_in_any_order(
    rows: list[tuple[float, ...]], random: random.Random
) -> None:
    """Values of a part share their unit, which grows with the largest one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exact_sum, "PART", 2)
        found = []
        for _ in range(2):
            total = ExactSum()
            for row in rows:
                total.add(np.array(row))
            found.append(np.asarray(total.value()))
            random.shuffle(rows)
    assert found[0].tobytes() == found[1].tobytes()
    exact = [float(sum((Fraction(row[at]) for row in rows), Fraction(0))) for at in range(3)]
    assert np.allclose(found[0], exact, rtol=4 * 2e-16, atol=0.0)


def test_a_weighted_value_is_rounded_as_a_float32_is_at_any_exponent() -> None:
    values = np.float32([1.1, -3.7, 1e-40, 2.0**-149, 1e38])
    for weight in (3.0, 0.1, 1e6, 1e-6):
        found = ExactSum()
        found.add(values, weight)
        for got, value in zip(np.asarray(found.value()), values, strict=True):
            exact = Fraction(float(value)) * Fraction(weight)
            assert abs(Fraction(float(got)) - exact) <= abs(exact) * Fraction(1, 2**24)
            assert np.frexp(got)[0] * 2**24 == np.round(np.frexp(got)[0] * 2**24)


def test_a_sum_can_be_taken_once() -> None:
    rng = np.random.default_rng(0)
    update = Adapter({"x": rng.normal(size=(3, 4)), "none": np.zeros((0, 2))})
    running = RunningMean({})
    for _ in range(2):
        running.add("a", update)
        mean = running.take()
        assert mean.shapes == update.shapes
        assert mean["x"].tobytes() == update["x"].tobytes()
        with pytest.raises(ValueError, match="no update"):
            running.take()


def test_other_shapes_and_nothing_at_all_are_refused() -> None:
    running = RunningMean({})
    with pytest.raises(ValueError, match="no update"):
        running.take()
    running.add("a", Adapter({"x": np.ones(2)}))
    with pytest.raises(ValueError, match="do not fit"):
        running.add("b", Adapter({"x": np.ones(3)}))
    tiny = ExactSum()
    tiny.add(np.array([5e-324]))  # below what any weighted update holds: zero, and no endless loop
    assert tiny.value() == 0.0


def test_a_mean_takes_three_times_an_update() -> None:
    """12 bytes a value for any number of sites, and no more as the mean takes the sum's place."""
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
        running.take()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= 12.6 * values  # with the temporary arrays of a part
