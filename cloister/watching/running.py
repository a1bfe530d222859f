"""Runs a watch: reads lines, stores the state, delivers alerts, updates page and metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloister.files import bad_file, write_whole
from cloister.owner_only import FILE
from cloister.trust.writing import PAGE
from cloister.watching.alert import Alert
from cloister.watching.alert_delivery import SECONDS, senders
from cloister.watching.couriers import Couriers
from cloister.watching.metrics import metrics_text
from cloister.watching.monitor import MonitorState, observe, passed
from cloister.watching.outbox import Outbox, with_alerts
from cloister.watching.page import watch_page
from cloister.watching.parsing import RowError
from cloister.watching.report import report_of
from cloister.watching.row import StreamRow
from cloister.watching.setup import Watch
from cloister.watching.shown import Shown
from cloister.watching.source import LineBatch, PredictionSource
from cloister.watching.state_file import State, write_state
from cloister.watching.surges import no_counts

JSON = "report.json"
# Seconds that a read waits for lines; signals, deliveries and the clock are checked as often.
WAIT = 0.5
# Least seconds between two pages: a person reads the page, and writing takes some milliseconds.
BETWEEN_PAGES = 2.0
# Seconds between two states on disk without an alert: after a crash, so many seconds are repeated.
BETWEEN_STATES = 0.5
# Most seconds that a row's own time may be ahead: time zones differ by at most 26 hours. One row of
# a later year would close all steps up to it, and every following row would be late.
AHEAD = 26 * 3600.0
# Refused lines that are reported one by one; further ones are only counted.
SAID = 3
# Most seconds that the end waits for running or due deliveries.
LAST_DELIVERIES = SECONDS + 2


@dataclass(frozen=True)
class Shell:
    """The outside world of a running watch: messages, signals and the clock.

    Attributes:
        say: Is called with messages for the operator.
        ends: Returns whether the watch should end.
        clock: Returns the time in seconds since 1970.
    """

    say: Callable[[str], None]
    ends: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time


def first_state(watch: Watch, before: State | None, say: Callable[[str], None]) -> State:
    """Returns the first state: the stored one, or an empty one.

    Args:
        watch: The watch.
        before: The stored state; None: there is none.
        say: Is called if windows start again.
    """
    topics = tuple(name for name, one in watch.file.topics.items() if one.column is None)
    monitor = MonitorState(no_counts(topics, watch.plan.surges))
    if before is None:
        return State(watch.digest, monitor, Outbox({}, {}))
    if before.digest == watch.digest:
        return before
    say("the watch file or the reference has changed: windows and counts start again")
    kept = replace(monitor, rows=before.monitor.rows, alerts=before.monitor.alerts)
    return replace(before, digest=watch.digest, monitor=kept)


def run_watch(
    watch: Watch, state: State, source: PredictionSource, shown: Shown, shell: Shell
) -> dict[str, Any]:
    """Watches until the source or the operator ends it.

    Args:
        watch: The watch.
        state: The first state.
        source: The source of lines.
        shown: The documents that the listener shows.
        shell: Messages, signals and the clock.

    Returns:
        The last report.

    Raises:
        BadFileError: The source cannot be read, or the folder cannot be written.

    Guarantees:
        Lines are counted and their alerts are put into the outbox in one step on disk, so an end
        at any moment loses no alert and makes none twice. A delivery that was running is repeated
        after a restart with the same id: a file takes it once, and other receivers can recognize
        the repetition.
    """
    couriers = Couriers(senders(watch.file), shell.say)
    state = replace(state, outbox=couriers.without_strangers(state.outbox))
    kept, kept_at, page_at, said = state, 0.0, 0.0, state.refused.count
    page_of: State | None = None
    try:
        while not shell.ends():
            batch = source.read(WAIT)
            for notice in batch.notices:
                shell.say(notice)
            found = taken(watch, state, batch, shell.clock(), couriers.addresses)
            state, now = found.state, shell.clock()
            said = _say_refused(shell, state, said)
            must = bool(found.alerts) or batch.kept is not None or batch.ended
            if state is not kept and (must or now - kept_at >= BETWEEN_STATES):
                write_state(watch.file.folder, state)
                kept, kept_at = state, now
            if batch.kept is not None:
                batch.kept(found.rows, found.refused)
            for alert in found.alerts:
                shell.say(alert.message)
            after = _delivered(watch, state, couriers, shell)
            if after is not state:
                state = kept = after
            if state is not page_of and now - page_at >= BETWEEN_PAGES:
                _show(watch, state, shown)
                page_of, page_at = state, now
            if batch.ended:
                break
    finally:
        source.close()
        if state is not kept:
            write_state(watch.file.folder, state)
        state = _last_deliveries(watch, state, couriers, shell)
        report = _show(watch, state, shown)
        couriers.close()
    return report


@dataclass(frozen=True)
class Taken:
    """The result of a batch of lines.

    Attributes:
        state: The state after the batch; the same object if no line came.
        alerts: The alerts of the batch, which are in the state's outbox.
        rows: Number of rows in the batch.
        refused: Number of lines that were not rows, by reason.
    """

    state: State
    alerts: tuple[Alert, ...] = ()
    rows: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


def taken(
    watch: Watch, state: State, batch: LineBatch, now: float, addresses: tuple[str, ...]
) -> Taken:
    """Takes a batch's lines as rows, and puts their alerts into the outbox.

    Args:
        watch: The watch.
        state: The state before.
        batch: The lines.
        now: The time in seconds since 1970.
        addresses: The addresses of alerts.
    """
    rows: list[tuple[float, StreamRow]] = []
    refused, reasons = state.refused, dict[str, int]()
    for number, line in batch.lines:
        try:
            found = watch.rows(line)
            if any(row.at is not None and row.at > now + AHEAD for row in found):
                raise RowError("a time to come")
        except RowError as error:
            refused = refused.plus(number, error.reason)
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
        else:
            rows += [(now if row.at is None else row.at, row) for row in found]
    monitor, alerts = state.monitor, tuple[Alert, ...]()
    if rows:
        monitor, alerts = observe(watch.plan, monitor, rows)
    elif watch.form.time is None and _step_is_over(watch, monitor, now):
        monitor, alerts = passed(watch.plan, monitor, now)
    if not batch.lines and monitor is state.monitor and batch.mark == state.mark:
        return Taken(state)
    mark = state.mark if batch.mark is None else batch.mark
    outbox = with_alerts(state.outbox, alerts, addresses)
    new = replace(state, monitor=monitor, outbox=outbox, refused=refused, mark=mark)
    return Taken(new, alerts, len(rows), reasons)


def _step_is_over(watch: Watch, monitor: MonitorState, now: float) -> bool:
    step = monitor.counts.step
    return step is not None and now >= (step + 1) * watch.plan.surges.step_seconds


def _say_refused(shell: Shell, state: State, said: int) -> int:
    count = state.refused.count
    for number, reason in state.refused.first[said:SAID]:
        shell.say(f"line {number} is no row: {reason}")
    if said <= SAID < count:
        shell.say("more lines are no rows; they are counted on the page")
    return count


def _delivered(
    watch: Watch, state: State, couriers: Couriers, shell: Shell, wait: float = 0.0
) -> State:
    """Returns the state after deliveries, also on disk; the same object if no delivery ended.

    Guarantees:
        Only alerts of a state that is on disk are delivered.
    """
    outbox = couriers.exchange(state.outbox, shell.clock(), wait)
    if outbox is state.outbox:
        return state
    state = replace(state, outbox=outbox)
    write_state(watch.file.folder, state)
    return state


def _last_deliveries(watch: Watch, state: State, couriers: Couriers, shell: Shell) -> State:
    """Waits for running or due deliveries; failed ones stay in the outbox."""
    until = time.monotonic() + LAST_DELIVERIES
    state = _delivered(watch, state, couriers, shell)
    while couriers.is_busy and time.monotonic() < until:
        state = _delivered(watch, state, couriers, shell, wait=WAIT)
    waiting = len(state.outbox.waiting)
    if waiting:
        shell.say(f"{waiting} deliveries wait in {watch.file.folder} for the next start")
    return state


def _show(watch: Watch, state: State, shown: Shown) -> dict[str, Any]:
    report = report_of(watch, state)
    page = watch_page(report, watch.plan.drift.psi_calm, watch.plan.drift.psi_alert).encode()
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    shown.replace(metrics_text(watch.plan, state), page, text)
    try:
        write_whole(watch.file.folder / PAGE, page, FILE)
        write_whole(watch.file.folder / JSON, text, FILE)
    except OSError as error:
        raise bad_file(error, "written") from error
    return report
