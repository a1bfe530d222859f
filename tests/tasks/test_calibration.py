"""The expected calibration error against numbers worked by hand and a slow twin."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.tasks.calibration import BINS, expected_calibration_error
from tests.support.examples import tries


def test_a_surely_wrong_model_has_an_error_of_its_confidence() -> None:
    assert expected_calibration_error([0.9, 0.9], [False, False]) == pytest.approx(0.9)
    assert expected_calibration_error([1.0], [True]) == 0.0
    assert expected_calibration_error([], []) == 0.0


def test_bins_keep_what_lies_apart_from_making_up_for_each_other() -> None:
    # 0.5 and always right, 0.98 and always wrong: in one bin the means would nearly meet.
    found = expected_calibration_error([0.5, 0.98], [True, False])
    assert found == pytest.approx((0.5 + 0.98) / 2)


def test_within_a_bin_right_and_wrong_make_up_for_each_other() -> None:
    assert expected_calibration_error([0.5, 0.5], [True, False]) == pytest.approx(0.0)


def slow(pairs: list[tuple[float, bool]]) -> float:
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        own = [(c, r) for c, r in pairs if low < c <= high or (c == 0 and number == 0)]
        if own:
            accuracy = sum(r for _, r in own) / len(own)
            confidence = sum(c for c, _ in own) / len(own)
            total += len(own) / len(pairs) * abs(accuracy - confidence)
    return total


@settings(max_examples=tries(40), deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans()), min_size=1, max_size=40))
def test_it_is_that_of_a_slow_twin(pairs: list[tuple[float, bool]]) -> None:
    # An edge of a bin is no exact float: which side it is on may differ.
    pairs = [(c, r) for c, r in pairs if abs(c * BINS - round(c * BINS)) > 1e-9]
    found = expected_calibration_error([c for c, _ in pairs], [r for _, r in pairs])
    assert math.isclose(found, slow(pairs) if pairs else 0.0, abs_tol=1e-12)
