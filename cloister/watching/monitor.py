"""Computes a watch as a pure function from state and rows to the next state and alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloister.watching.alert import Alert, make_alert
from cloister.watching.config import DriftConfig, SurgesConfig
from cloister.watching.debounce import Calm, Debounced, Event, debounced
from cloister.watching.drift import (
    DriftFigure,
    WindowFigures,
    compare,
    is_calm,
    is_drift,
)
from cloister.watching.reference import DriftReference, measured
from cloister.watching.row import Features, StreamRow
from cloister.watching.surges import (
    Counts,
    Look,
    SurgeFigure,
    after_silence,
    closed_step,
    counted_row,
    is_over,
    is_surge,
    look,
    with_surge,
)
from cloister.watching.topics import Topics, topics_of

# Windows and checks that page and report show, as a chart of some hundred points; with many topics
# fewer checks, so that the state has at most some megabytes.
SHOWN_WINDOWS, SHOWN_LOOKS, SHOWN_FIGURES = 120, 400, 20_000
# Most alerts that page and report show.
SHOWN_ALERTS = 100


@dataclass(frozen=True)
class WatchPlan:
    """The settings of a watch, which do not change while it runs.

    Attributes:
        name: The watch's name.
        drift: Thresholds of drift.
        surges: Thresholds of surges.
        topics: The topics with compiled terms.
        reference: The reference of all windows; None: drift is not measured.
    """

    name: str
    drift: DriftConfig
    surges: SurgesConfig
    topics: Topics
    reference: DriftReference | None

    @property
    def per_rows(self) -> dict[str, bool]:
        """Returns, by topic, whether it is compared per row."""
        return {name: one.per == "rows" for name, one in self.topics.configs.items()}


@dataclass(frozen=True)
class MonitorState:
    """The state of drift, surges and alerts between two calls.

    Attributes:
        counts: The counts of topics.
        rows: Rows so far.
        window: Features of the open window's rows, each with its time.
        closed: Closed windows so far.
        debounced: The conditions, by `drift:FEATURE` and `surge:TOPIC`.
        windows: The last closed windows.
        looks: The last checks of topics.
        alerts: The last alerts.
    """

    counts: Counts
    rows: int = 0
    window: tuple[tuple[float, Features], ...] = ()
    closed: int = 0
    debounced: Mapping[str, Debounced] = field(default_factory=dict)
    windows: tuple[WindowFigures, ...] = ()
    looks: tuple[Look, ...] = ()
    alerts: tuple[Alert, ...] = ()


def observe(
    plan: WatchPlan, state: MonitorState, rows: Sequence[tuple[float, StreamRow]]
) -> tuple[MonitorState, tuple[Alert, ...]]:
    """Takes rows, and returns the next state and the alerts.

    Args:
        plan: The watch.
        state: The state before the rows.
        rows: The rows, each with its time in seconds since 1970: its own, or that of its arrival.

    Returns:
        The state after the rows, and their alerts in order. The result does not depend on how the
        rows are divided into calls.
    """
    alerts: list[Alert] = []
    window = list(state.window)
    for at, row in rows:
        if plan.topics.configs:
            state = _to_step(plan, state, at, alerts)
            counts = counted_row(state.counts, topics_of(plan.topics, row))
            state = replace(state, counts=counts)
        if plan.reference is not None:
            window.append((at, measured(row, plan.reference.directions)))
            if len(window) >= plan.drift.window_rows:
                state = _close_window(plan, plan.reference, state, window, alerts)
                window = []
    state = replace(state, rows=state.rows + len(rows), window=tuple(window))
    return _told(state, alerts)


def passed(
    plan: WatchPlan, state: MonitorState, now: float
) -> tuple[MonitorState, tuple[Alert, ...]]:
    """Lets time pass without a row: steps that are over are closed and checked.

    Args:
        plan: The watch.
        state: The state before.
        now: The time in seconds since 1970.
    """
    alerts: list[Alert] = []
    if plan.topics.configs and state.counts.step is not None:
        state = _to_step(plan, state, now, alerts)
    return _told(state, alerts)


def _told(state: MonitorState, alerts: list[Alert]) -> tuple[MonitorState, tuple[Alert, ...]]:
    kept = (*state.alerts, *alerts)[-SHOWN_ALERTS:]
    return replace(state, alerts=kept), tuple(alerts)


def _to_step(plan: WatchPlan, state: MonitorState, at: float, alerts: list[Alert]) -> MonitorState:
    step = int(at // plan.surges.step_seconds)
    counts = state.counts
    if counts.step is None:
        return replace(state, counts=replace(counts, step=step))
    if step < counts.step:
        return replace(state, counts=replace(counts, late=counts.late + 1))
    counts = after_silence(counts, step, plan.surges)
    while counts.step is not None and counts.step < step:
        counts = closed_step(counts, plan.surges)
        found = look(counts, plan.surges, plan.per_rows)
        shown = min(SHOWN_LOOKS, SHOWN_FIGURES // max(1, len(counts.topics)))
        state = replace(state, looks=(*state.looks, found)[-shown:])
        for figure in found.figures:
            state, event = _looked_at(plan, state, figure, found.at)
            if state.debounced.get(f"surge:{figure.topic}", Debounced()).is_on:
                steps = plan.surges.window_steps if event == "begins" else 1
                counts = with_surge(counts, figure.topic, steps)
            if event is not None:
                alerts.append(_surge_alert(plan, figure, event, found.at))
    return replace(state, counts=counts)


def _looked_at(
    plan: WatchPlan, state: MonitorState, figure: SurgeFigure, at: float
) -> tuple[MonitorState, Event | None]:
    key = f"surge:{figure.topic}"
    is_high = is_surge(figure, plan.surges)
    if not is_high and key not in state.debounced:
        return state, None
    calm = Calm(plan.surges.gap_seconds, plan.surges.calm_looks)
    before = state.debounced.get(key, Debounced())
    is_low = is_over(figure, plan.surges)
    after, event = debounced(before, calm, at, is_high=is_high, is_low=is_low)
    return replace(state, debounced={**state.debounced, key: after}), event


def _close_window(
    plan: WatchPlan,
    reference: DriftReference,
    state: MonitorState,
    window: Sequence[tuple[float, Features]],
    alerts: list[Alert],
) -> MonitorState:
    times = window[0][0], window[-1][0]
    number = state.closed + 1
    found = compare(reference, [one for _, one in window], times, number, plan.drift)
    states = dict(state.debounced)
    for figure in found.figures:
        key = f"drift:{figure.feature}"
        calm = Calm(plan.drift.gap_seconds, plan.drift.calm_windows)
        is_high = is_drift(figure, found.level, plan.drift)
        is_low = is_calm(figure, plan.drift)
        before = states.get(key, Debounced())
        states[key], event = debounced(before, calm, times[1], is_high=is_high, is_low=is_low)
        if event is not None:
            alerts.append(_drift_alert(plan, found, figure, event))
    windows = (*state.windows, found)[-SHOWN_WINDOWS:]
    return replace(state, closed=number, debounced=states, windows=windows)


def _surge_alert(plan: WatchPlan, figure: SurgeFigure, event: Event, at: float) -> Alert:
    minutes = plan.surges.window_seconds / 60
    told = f"{figure.count} in {minutes:g} minutes, where {figure.expected:.3g} are usual"
    verb = "surges" if event == "begins" else "surges no longer"
    figures = {
        "count": figure.count,
        "expected": figure.expected,
        "window_seconds": plan.surges.window_seconds,
        "p": figure.p,
        "level": figure.level,
        "dispersion": figure.dispersion,
    }
    message = f"{figure.topic} {verb}: {told}"
    return make_alert(plan.name, "surge", figure.topic, event, at, message, figures)


def _drift_alert(plan: WatchPlan, found: WindowFigures, figure: DriftFigure, event: Event) -> Alert:
    p = "not tested" if figure.p is None else f"p = {figure.p:.2g}"
    where = f", most at {figure.where}" if figure.where else ""
    verb = "drifts" if event == "begins" else "drifts no longer"
    message = f"{figure.feature} {verb}: PSI {figure.psi:.3f} ({figure.test} {p}{where})"
    figures = {
        "window": found.number,
        "rows": found.rows,
        "psi": figure.psi,
        "p": figure.p,
        "level": found.level,
        "where": figure.where,
    }
    return make_alert(plan.name, "drift", figure.feature, event, found.last, message, figures)
