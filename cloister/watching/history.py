"""Replays a labelled history, and counts detections, their delays, and false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import bdtr

from cloister.errors import DataError, UsageError
from cloister.trust.intervals import LEVEL, Interval, wilson
from cloister.watching.alert import Alert
from cloister.watching.events import TrueEvent
from cloister.watching.monitor import MonitorState, observe
from cloister.watching.parsing import RowError, read_time
from cloister.watching.rates import poisson_interval
from cloister.watching.setup import Watch, lines_of
from cloister.watching.state_file import Refused
from cloister.watching.surges import no_counts

Kind = Literal["drift", "surge"]
DAY = 86_400.0


@dataclass(frozen=True)
class Tally:
    """Alerts of one kind against what happened.

    Attributes:
        kind: Of alerts and events.
        events: That happened.
        detected: Of them, those with an alert.
        found: The share of them, with its interval; None: nothing happened.
        delays: From an event's start to its first alert, in seconds, ascending.
        delay: Their median with its interval; None: nothing was detected.
        repeats: Further alerts of events that were detected.
        false_alarms: Alerts while nothing happened.
        calm_days: Days in which nothing happened.
        rate: False alarms a calm day, with the exact interval of Poisson counts; None: no calm.
    """

    kind: Kind
    events: int
    detected: int
    found: Interval | None
    delays: tuple[float, ...]
    delay: Interval | None
    repeats: int
    false_alarms: int
    calm_days: float
    rate: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return {
            "kind": self.kind,
            "events": self.events,
            "detected": self.detected,
            "found": None if self.found is None else self.found.to_json(),
            "delays_seconds": list(self.delays),
            "median_delay_seconds": None if self.delay is None else self.delay.to_json(),
            "repeats": self.repeats,
            "false_alarms": self.false_alarms,
            "calm_days": self.calm_days,
            "false_alarms_a_calm_day": None if self.rate is None else self.rate.to_json(),
        }


@dataclass(frozen=True)
class Replayed:
    """A history that was replayed.

    Attributes:
        rows: Of it.
        refused: Lines that were no rows.
        alerts: In their order.
        tallies: Of each kind that is watched.
    """

    rows: int
    refused: Refused
    alerts: tuple[Alert, ...]
    tallies: tuple[Tally, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return {
            "rows": self.rows,
            "refused": {"lines": self.refused.count, "by_reason": dict(self.refused.by_reason)},
            "alerts": [alert.to_json() for alert in self.alerts],
            "tallies": [tally.to_json() for tally in self.tallies],
        }


def replay(watch: Watch, history: Path, events: Sequence[TrueEvent]) -> Replayed:
    """Replays a history from an empty state; nothing is sent, and no state is kept.

    Args:
        watch: What would be watched.
        history: Lines of the stream's form, in order of their times.
        events: What happened.

    Raises:
        UsageError: The watch file names no column of times.
        DataError: The history cannot be read, or has no rows.
    """
    if watch.form.time is None:
        raise UsageError(
            f"{watch.file.path}: a history is replayed by its rows' own times; name their column "
            "by time in [source]"
        )
    topics = tuple(name for name, one in watch.file.topics.items() if one.column is None)
    state = MonitorState(no_counts(topics, watch.plan.surges))
    refused, alerts, times = Refused(), list[Alert](), list[float]()
    for number, line in lines_of(history):
        try:
            rows = watch.rows(line)
        except RowError as error:
            refused = refused.plus(number, error.reason)
            continue
        timed = [(row.at, row) for row in rows if row.at is not None]
        state, new = observe(watch.plan, state, timed)
        alerts += new
        times += [at for at, _ in timed]
    if not times:
        raise DataError(f"{history}: no row of {watch.form.kind} found in it")
    kinds: list[Kind] = ["drift"] if watch.plan.reference is not None else []
    kinds += ["surge"] if watch.file.topics else []
    grace = watch.plan.surges.window_seconds
    span = (min(times), max(times))
    tallies = tuple(tally(kind, alerts, events, span, grace) for kind in kinds)
    return Replayed(state.rows, refused, tuple(alerts), tallies)


def tally(
    kind: Kind,
    alerts: Sequence[Alert],
    events: Sequence[TrueEvent],
    span: tuple[float, float],
    grace: float,
) -> Tally:
    """Counts the alerts of one kind.

    Args:
        kind: Of them.
        alerts: All of the history.
        events: All that happened.
        span: The history's first and last time, in seconds.
        grace: Seconds after an event's end in which an alert is still its own.
    """
    mine = [one for one in events if one.kind == kind]
    first: dict[int, float] = {}
    repeats = false = 0
    for alert in alerts:
        if alert.kind != kind or alert.event != "begins":
            continue
        at = read_time(alert.at)
        hits = [n for n, one in enumerate(mine) if _is_of(alert, at, one, grace)]
        new = [n for n in hits if n not in first]
        first |= dict.fromkeys(new, at)
        false += not hits
        repeats += bool(hits) and not new
    delays = tuple(sorted(at - mine[n].start for n, at in first.items()))
    calm = _calm_seconds(mine, span, grace) / DAY
    rate = None
    if calm > 0:
        rate = Interval(false / calm, *poisson_interval(false, calm))
    found = wilson(len(first), len(mine))
    return Tally(
        kind, len(mine), len(first), found, delays, median(delays), repeats, false, calm, rate
    )


def median(ordered: Sequence[float]) -> Interval | None:
    """The median with its distribution-free interval; None of nothing.

    The ends are order statistics whose coverage, of a binomial with share 1/2, is at least `LEVEL`
    (Conover 1999, Practical Nonparametric Statistics, section 3.2); of fewer than six values they
    are the smallest and the largest, which cover less.

    Args:
        ordered: Values in ascending order.
    """
    count = len(ordered)
    if not count:
        return None
    place = 0
    while 2 * place + 2 < count and bdtr(place, count, 0.5) <= (1 - LEVEL) / 2:
        place += 1
    place = max(0, place - 1)
    return Interval(float(np.median(ordered)), ordered[place], ordered[count - 1 - place])


def _is_of(alert: Alert, at: float, event: TrueEvent, grace: float) -> bool:
    named = event.key in ("", alert.key)
    return named and event.start <= at <= event.end + grace


def _calm_seconds(events: Sequence[TrueEvent], span: tuple[float, float], grace: float) -> float:
    """Of a span, the seconds in none of the events, their grace included."""
    first, last = span
    calm, reached = 0.0, first
    for one in sorted(events, key=lambda event: event.start):
        calm += max(0.0, min(one.start, last) - reached)
        reached = max(reached, min(one.end + grace, last))
    return calm + max(0.0, last - reached)
