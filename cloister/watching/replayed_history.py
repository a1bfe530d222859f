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
from cloister.watching.history_events import TrueEvent
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
    """Counts of one kind of alert, in comparison with the real events.

    Attributes:
        kind: The kind of alerts and events.
        events: Number of real events.
        detected: Number of events with an alert.
        found: The share of events with an alert, and its interval; None: there was no event.
        delays: Times from an event's start to its first alert, in seconds, ascending.
        delay: Their median with its interval; None: no event was detected.
        repeats: Number of further alerts of detected events.
        false_alarms: Number of alerts outside of all events.
        calm_days: Days without an event.
        rate: False alarms per calm day, with the exact interval of Poisson counts; None: there was
            no calm time.
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
        """Returns the figures as a JSON object."""
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
    """The result of a replayed history.

    Attributes:
        rows: Number of its rows.
        refused: Lines that were not rows.
        alerts: The alerts in their order.
        tallies: The counts of each kind that is watched.
    """

    rows: int
    refused: Refused
    alerts: tuple[Alert, ...]
    tallies: tuple[Tally, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as a JSON object."""
        return {
            "rows": self.rows,
            "refused": {"lines": self.refused.count, "by_reason": dict(self.refused.by_reason)},
            "alerts": [alert.to_json() for alert in self.alerts],
            "tallies": [tally.to_json() for tally in self.tallies],
        }


def replay(watch: Watch, history: Path, events: Sequence[TrueEvent]) -> Replayed:
    """Replays a history from an empty state; nothing is sent, and no state is stored.

    Args:
        watch: The watch whose settings are tried.
        history: A file of lines in the stream's form, in order of their times.
        events: The real events.

    Raises:
        UsageError: The watch file names no column of times.
        DataError: The history cannot be read, or has no rows.
    """
    if watch.form.time is None:
        raise UsageError(
            f"{watch.file.path}: replaying a history needs its rows' own times; set time in "
            "[source] to their column"
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
        kind: The kind that is counted.
        alerts: All alerts of the history.
        events: All real events.
        span: The history's first and last time, in seconds.
        grace: Seconds after an event's end in which an alert still belongs to it.
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
    """Returns the median with its distribution-free interval; None: there is no value.

    The ends are order statistics whose coverage, by the binomial with share 1/2, is at least
    `LEVEL` (Conover 1999, Practical Nonparametric Statistics, section 3.2). With fewer than six
    values they are the smallest and the largest value, whose coverage is smaller.

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
    """Returns the seconds of a span that are outside of all events and their grace."""
    first, last = span
    calm, reached = 0.0, first
    for one in sorted(events, key=lambda event: event.start):
        calm += max(0.0, min(one.start, last) - reached)
        reached = max(reached, min(one.end + grace, last))
    return calm + max(0.0, last - reached)
