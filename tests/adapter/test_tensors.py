"""An adapter is an immutable vector of named tensors; only equal shapes can be combined."""

import math
import pickle

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter

A = Adapter({"b": np.array([3.0], np.float32), "a": np.array([[0.0, 4.0]], np.float32)})


def test_norm_is_taken_over_all_tensors_at_once() -> None:
    assert A.norm() == 5.0


def test_names_come_in_order() -> None:
    assert list(A) == ["a", "b"]


def test_arithmetic_is_elementwise() -> None:
    total = A + A.scale(2.0)
    assert total["a"].tolist() == [[0.0, 12.0]]
    assert (total - A).norm() == 10.0
    assert A.zeros().norm() == 0.0


def test_replacing_a_part_leaves_the_rest() -> None:
    changed = A.replace(Adapter({"b": np.array([7.0])}))
    assert changed["b"].tolist() == [7.0]
    assert changed["a"].tolist() == [[0.0, 4.0]]


def test_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        A["a"][0, 0] = 1.0


def test_the_source_array_is_copied() -> None:
    source = np.zeros(2)
    adapter = Adapter({"x": source})
    source[0] = 1.0
    assert adapter["x"].tolist() == [0.0, 0.0]


def test_an_array_that_nothing_can_change_is_not_copied() -> None:
    fixed = np.ones(3, dtype=np.float32)
    fixed.setflags(write=False)
    assert Adapter({"a": fixed})["a"] is fixed
    assert Adapter(Adapter({"a": fixed}))["a"] is fixed


def test_a_read_only_view_is_copied_since_the_array_below_it_may_change() -> None:
    below = np.ones(3, dtype=np.float32)
    view = below[:]
    view.setflags(write=False)
    adapter = Adapter({"a": view})
    below[0] = 5.0
    assert adapter["a"][0] == 1.0


def test_other_names_or_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in b"):
        A + A.select(["a"])
    with pytest.raises(ValueError, match="differ in b"):
        A.replace(Adapter({"b": np.zeros(2)}))


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="floating"):
        Adapter({"x": np.zeros(2, np.int64)})  # type: ignore[dict-item]


def test_an_adapter_survives_a_worker_boundary() -> None:
    again = pickle.loads(pickle.dumps(A))
    assert again.shapes == A.shapes
    assert (again - A).norm() == 0.0


def test_non_finite_elements_are_noticed() -> None:
    assert A.is_finite()
    assert not Adapter({"x": np.array([math.nan])}).is_finite()
    assert not Adapter({"x": np.array([math.inf])}).is_finite()
