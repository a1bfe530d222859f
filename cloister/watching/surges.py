"""Counts topics in steps of time, and checks for surges at the end of each step.

The stored steps are, oldest first: the baseline; then a guard as long as a window, which keeps a
surge's own beginning out of its past (Farrington et al. 1996); then the window. Steps of a surge
with an alert are left out of its topic's past (Farrington et al. give outbreaks a smaller weight),
because the next surge would otherwise be compared with the last one. If they are more than half of
the past, they are normal by now, and count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cloister.watching.config import SurgesConfig
from cloister.watching.rates import dispersion, excess

# Most topics, including values of columns.
MOST_TOPICS = 500


@dataclass(frozen=True)
class Counts:
    """The stored counts of topics. The arrays are never changed in place.

    Attributes:
        topics: The topics' names, in the order of the columns.
        rows: Rows of each topic in each closed step, int64 [S, T]; the latest step is the last.
        hits: Rows whose answer is counted, int64 [S, T].
        surged: Whether a topic had an alert in a step, bool [S, T].
        open_rows: Rows of each topic in the open step, [T].
        open_hits: Rows of the open step whose answer is counted, [T].
        step: The number of the open step since 1970; None: no row has come.
        closed: Number of closed steps so far, at most S.
        late: Number of rows that came after their step was closed; they count in the open step.
        beyond: Number of rows of topics beyond `MOST_TOPICS`, which are not counted.
    """

    topics: tuple[str, ...]
    rows: np.ndarray
    hits: np.ndarray
    surged: np.ndarray
    open_rows: np.ndarray
    open_hits: np.ndarray
    step: int | None = None
    closed: int = 0
    late: int = 0
    beyond: int = 0


@dataclass(frozen=True)
class SurgeFigure:
    """The check of one topic at the end of a step.

    Attributes:
        topic: The topic's name.
        count: Number of counted answers in the window.
        expected: Their expected number, at the baseline's rate.
        p: The p-value of such a count.
        level: The largest p-value of a finding.
        dispersion: Dispersion of the past's counts, relative to Poisson counts.
    """

    topic: str
    count: int
    expected: float
    p: float
    level: float
    dispersion: float

    @property
    def ratio(self) -> float:
        """Returns the count over the expected number; infinite if that is 0."""
        return self.count / self.expected if self.expected else math.inf


@dataclass(frozen=True)
class Look:
    """The check of all topics at the end of a step.

    Attributes:
        at: The step's end in seconds since 1970.
        figures: The figures of each topic; empty: the baseline is too short yet.
    """

    at: float
    figures: tuple[SurgeFigure, ...]


def no_counts(topics: tuple[str, ...], config: SurgesConfig) -> Counts:
    """Returns the empty counts before the first row."""
    empty = np.zeros((config.steps_kept, len(topics)), dtype=np.int64)
    row = np.zeros(len(topics), dtype=np.int64)
    return Counts(topics, empty, empty, empty.astype(bool), row, row)


def is_surge(figure: SurgeFigure, config: SurgesConfig) -> bool:
    """Returns whether a count is large, significant, and a multiple of the past's rate."""
    enough = figure.count >= config.min_count and figure.ratio >= config.min_ratio
    return enough and figure.p <= figure.level


def is_over(figure: SurgeFigure, config: SurgesConfig) -> bool:
    """Returns whether a surge is over: a single test at the usual 5 % finds nothing."""
    return figure.p > 0.05 or figure.count < config.min_count


def counted_row(counts: Counts, found: list[tuple[str, bool]]) -> Counts:
    """Counts a row in the open step.

    Args:
        counts: The counts before the row.
        found: The row's topics, each with whether its answer is counted.
    """
    new = [name for name, _ in found if name not in counts.topics]
    room = MOST_TOPICS - len(counts.topics)
    if new:
        counts = _widened(counts, new[:room])
    rows, hits = counts.open_rows.copy(), counts.open_hits.copy()
    for name, is_hit in found:
        if name in counts.topics:
            place = counts.topics.index(name)
            rows[place] += 1
            hits[place] += is_hit
    beyond = counts.beyond + max(0, len(new) - room)
    return replace(counts, open_rows=rows, open_hits=hits, beyond=beyond)


def after_silence(counts: Counts, step: int, config: SurgesConfig) -> Counts:
    """Returns the counts before a step far ahead: a longer silence counts as the stored length.

    Args:
        counts: The counts before the silence.
        step: The number of the step that opens.
        config: The lengths of steps.
    """
    assert counts.step is not None
    if step - counts.step <= config.steps_kept:
        return counts
    # The open step is dropped too: it is older than all steps that are stored after the silence.
    return replace(
        counts,
        rows=np.zeros_like(counts.rows),
        hits=np.zeros_like(counts.hits),
        surged=np.zeros_like(counts.surged),
        open_rows=np.zeros_like(counts.open_rows),
        open_hits=np.zeros_like(counts.open_hits),
        step=step - config.steps_kept,
    )


def closed_step(counts: Counts, config: SurgesConfig) -> Counts:
    """Closes the open step, and opens the next one."""
    assert counts.step is not None
    return replace(
        counts,
        rows=np.vstack([counts.rows[1:], counts.open_rows]),
        hits=np.vstack([counts.hits[1:], counts.open_hits]),
        surged=np.vstack([counts.surged[1:], np.zeros(len(counts.topics), dtype=bool)]),
        open_rows=np.zeros_like(counts.open_rows),
        open_hits=np.zeros_like(counts.open_hits),
        step=counts.step + 1,
        closed=min(counts.closed + 1, config.steps_kept),
    )


def look(counts: Counts, config: SurgesConfig, per_rows: Mapping[str, bool]) -> Look:
    """Compares each topic's window with its baseline.

    Args:
        counts: The counts after a step was closed.
        config: The lengths and thresholds.
        per_rows: By topic, whether it is compared per row; otherwise per time.
    """
    assert counts.step is not None
    at = counts.step * config.step_seconds
    window = config.window_steps
    seen = min(counts.closed - 2 * window, config.baseline_steps)
    if seen < max(window, math.ceil(config.least_baseline * config.baseline_steps)):
        return Look(at, ())
    end = len(counts.rows) - 2 * window
    blocks = seen // window
    begin = end - blocks * window
    usable = ~counts.surged[begin:end]
    usable |= usable.mean(axis=0) < 0.5
    shape = (blocks, window, len(counts.topics))
    past_hits = (counts.hits[begin:end] * usable).reshape(shape).sum(axis=1)
    past_rows = (counts.rows[begin:end] * usable).reshape(shape).sum(axis=1)
    past_steps = usable.reshape(shape).sum(axis=1)
    now_hits, now_rows = counts.hits[-window:].sum(axis=0), counts.rows[-window:].sum(axis=0)
    level = config.false_alarm / config.horizon / max(1, len(counts.topics))
    figures = []
    for place, topic in enumerate(counts.topics):
        by_rows = per_rows.get(topic.partition("=")[0], False)
        exposures = (past_rows if by_rows else past_steps)[:, place]
        exposure = float(now_rows[place]) if by_rows else float(window)
        past, whole = float(past_hits[:, place].sum()), float(exposures.sum())
        count = int(now_hits[place])
        varies = dispersion(past_hits[:, place].tolist(), exposures.tolist())
        p = excess(count, exposure, past, whole, varies)
        expected = past * exposure / whole if whole else 0.0
        figures.append(SurgeFigure(topic, count, expected, p, level, varies))
    return Look(at, tuple(figures))


def with_surge(counts: Counts, topic: str, steps: int) -> Counts:
    """Marks the last closed steps as part of a topic's surge."""
    surged = counts.surged.copy()
    surged[-steps:, counts.topics.index(topic)] = True
    return replace(counts, surged=surged)


def _widened(counts: Counts, names: list[str]) -> Counts:
    """Returns the counts with empty columns for new topics."""
    more = len(names)
    wide = ((0, 0), (0, more))
    return replace(
        counts,
        topics=(*counts.topics, *names),
        rows=np.pad(counts.rows, wide),
        hits=np.pad(counts.hits, wide),
        surged=np.pad(counts.surged, wide),
        open_rows=np.pad(counts.open_rows, (0, more)),
        open_hits=np.pad(counts.open_hits, (0, more)),
    )
