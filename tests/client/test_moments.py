"""The times at which answers leave do not depend on the work that was done before."""

import math

import pytest

from cloister.client.moments import AT_ONCE, LEAST, SLACK, Moments, period_of
from tests.support.clock import Clock


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.1, 0.2, 1.0, 7.3, 1000.0])
def test_a_period_leaves_room_and_is_one_of_few(seconds: float) -> None:
    period = period_of(seconds)
    assert seconds * SLACK <= period <= max(LEAST, 1.4143 * SLACK * seconds)
    halves = 2 * math.log2(period / LEAST)
    assert halves == pytest.approx(round(halves))


@pytest.mark.parametrize("took", [0.0, 0.001, 1.9, 2.0])
def test_work_within_a_period_ends_at_one_moment(took: float) -> None:
    clock = Clock(17.25)
    moments = Moments(clock, clock.wait)
    clock.now += took
    assert moments.hold(17.25, 2.0) == 19.25
    assert clock.now == 19.25


@pytest.mark.parametrize(("took", "ends"), [(2.001, 4.0), (3.9, 4.0), (4.5, 6.0), (399.0, 400.0)])
def test_longer_work_tells_the_number_of_periods_and_nothing_finer(
    took: float, ends: float
) -> None:
    clock = Clock(took)
    assert Moments(clock, clock.wait).hold(0.0, 2.0) == ends
    assert clock.now == ends


def test_without_a_period_or_a_watcher_nobody_waits() -> None:
    clock = Clock(5.0)
    assert Moments(clock, clock.wait).hold(1.0, 0.0) == 1.0
    assert clock.now == 5.0
    assert AT_ONCE.hold(3.0, 7.5) == 3.0


def test_a_wait_that_ends_early_goes_on() -> None:
    clock = Clock(0.25)
    Moments(clock, lambda seconds: clock.wait(seconds / 2 if seconds > 0.01 else seconds)).hold(
        0.0, 1.0
    )
    assert clock.now == 1.0
