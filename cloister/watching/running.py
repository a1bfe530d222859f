"""Runs a watch: reads lines, keeps the state, delivers alerts, shows what it knows."""

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
from cloister.watching.couriers import Couriers
from cloister.watching.delivery import SECONDS, senders
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
# Seconds that a read waits for lines: as often signals, deliveries and the clock are looked at.
WAIT = 0.5
# Least seconds between two pages: a page is for a person, and takes some milliseconds to write.
BETWEEN_PAGES = 2.0
# Seconds between two states on disk while there is no alert: what a crash leaves to read again.
BETWEEN_STATES = 0.5
# Seconds that a row's own time may be ahead: zones differ by at most 26 hours. One row of a far
# year would close all steps up to it, and every later row would come too late for its own.
AHEAD = 26 * 3600.0
# Refused lines that are said one by one; the rest is counted.
SAID = 3
# Seconds that the end waits for deliveries that are under way or due.
LAST_DELIVERIES = SECONDS + 2


@dataclass(frozen=True)
class Shell:
    """What a running watch uses of the world.

    Attributes:
        say: Called with what the operator should know.
        ends: Whether it should end.
        clock: The time in seconds since 1970.
    """

    say: Callable[[str], None]
    ends: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time


def first_state(watch: Watch, before: State | None, say: Callable[[str], None]) -> State:
    """The state to begin with: the one before, or a new one.

    Args:
        watch: What is watched.
        before: As it was kept; None: nothing was.
        say: Called if windows begin anew.
    """
    topics = tuple(name for name, one in watch.file.topics.items() if one.column is None)
    monitor = MonitorState(no_counts(topics, watch.plan.surges))
    if before is None:
        return State(watch.digest, monitor, Outbox({}, {}))
    if before.digest == watch.digest:
        return before
    say("the watch file or the reference has changed: windows and counts begin anew")
    kept = replace(monitor, rows=before.monitor.rows, alerts=before.monitor.alerts)
    return replace(before, digest=watch.digest, monitor=kept)


def run_watch(
    watch: Watch, state: State, source: PredictionSource, shown: Shown, shell: Shell
) -> dict[str, Any]:
    """Watches until the source or the operator ends it.

    Args:
        watch: What is watched.
        state: To begin with.
        source: Gives lines.
        shown: What the listener shows.
        shell: What it uses of the world.

    Returns:
        The last report.

    Raises:
        BadFileError: The source cannot be read, or the folder not be written.

    Guarantees:
        Lines count and their alerts are in the outbox in one step on disk, so that an end at any
        moment loses no alert and makes none twice. A delivery that was under way is repeated after
        a restart, with the same id: a file takes it once, and other receivers can tell.
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
    """What became of a batch.

    Attributes:
        state: After it; the same one where nothing came.
        alerts: That it raised; they are in the state's outbox.
        rows: Of the batch.
        refused: Its lines that were no rows, by reason.
    """

    state: State
    alerts: tuple[Alert, ...] = ()
    rows: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


def taken(
    watch: Watch, state: State, batch: LineBatch, now: float, addresses: tuple[str, ...]
) -> Taken:
    """A batch's lines as rows, and their alerts in the outbox.

    Args:
        watch: What is watched.
        state: Before.
        batch: Of lines.
        now: In seconds since 1970.
        addresses: To which alerts go.
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
    """The state after deliveries, on disk; the same one where none ended.

    Guarantees:
        Only alerts of a state that is on disk are handed out.
    """
    outbox = couriers.exchange(state.outbox, shell.clock(), wait)
    if outbox is state.outbox:
        return state
    state = replace(state, outbox=outbox)
    write_state(watch.file.folder, state)
    return state


def _last_deliveries(watch: Watch, state: State, couriers: Couriers, shell: Shell) -> State:
    """Gives what is under way or due its time; what fails stays in the outbox."""
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
