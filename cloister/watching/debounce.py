"""Turns a noisy condition into few alerts, by two thresholds, calm checks and a least gap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Event = Literal["begins", "ends"]


@dataclass(frozen=True)
class Debounced:
    """The state of one condition.

    Attributes:
        is_on: Whether its alert has begun and not ended.
        calm: Checks in a row at which it was low, since the alert began.
        alerted_at: Time of its last alert, in seconds; None: there was none.
    """

    is_on: bool = False
    calm: int = 0
    alerted_at: float | None = None


@dataclass(frozen=True)
class Calm:
    """The settings for the begin and end of alerts.

    Attributes:
        gap_seconds: Least time between two alerts of one condition.
        looks: Checks in a row at which it must be low before the alert ends.
    """

    gap_seconds: float
    looks: int


def debounced(
    state: Debounced, calm: Calm, now: float, *, is_high: bool, is_low: bool
) -> tuple[Debounced, Event | None]:
    """Returns the next state, and whether an alert begins or ends.

    Between low and high nothing changes (hysteresis). If a condition is high again before the gap
    is over, its alert begins after the gap, if the condition is still high then.

    Args:
        state: The state before this check.
        calm: The settings for begin and end.
        now: The time of this check, in seconds.
        is_high: Whether the condition is above its upper threshold.
        is_low: Whether it is below its lower one.
    """
    if not state.is_on:
        waits = state.alerted_at is not None and now - state.alerted_at < calm.gap_seconds
        if not is_high or waits:
            return state, None
        return Debounced(is_on=True, alerted_at=now), "begins"
    if not is_low:
        return replace(state, calm=0), None
    if state.calm + 1 < calm.looks:
        return replace(state, calm=state.calm + 1), None
    return replace(state, is_on=False, calm=0), "ends"
