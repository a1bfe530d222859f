"""Counts of topics by steps of time, and the look at the end of each step.

The layout of the steps kept, oldest first: the baseline, then a guard as long as a window, which
keeps a surge's own beginning out of its past (Farrington et al. 1996), then the window. Steps of
a surge that was alerted are left out of the past of its topic (as Farrington et al. weigh outbreaks
down), or the next surge would be measured against the last one; where they are more than half of
the past, they are what is usual by now, and count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cloister.watching.config import SurgesConfig
from cloister.watching.rates import dispersion, excess

# Most topics in all, values of columns among them.
MOST_TOPICS = 500


@dataclass(frozen=True)
class Counts:
    """What surges remember. The arrays are never changed in place.

    Attributes:
        topics: Their names, in the order of the columns.
        rows: Rows of each topic in each closed step, int64 [S, T]; the latest step is the last.
        hits: Those whose answer counts, likewise.
        surged: Whether an alert of a topic stood at a step, bool [S, T].
        open_rows: Of the step that is open, [T].
        open_hits: Likewise.
        step: The number of the open step since 1970; None: no row has come.
        closed: Closed steps so far, at most S.
        late: Rows that came after their step had closed; they count in the open one.
        beyond: Rows of topics beyond `MOST_TOPICS`, which are not counted.
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
    """One topic at one look.

    Attributes:
        topic: Its name.
        count: Answers that count, in the window.
        expected: Of them, at the baseline's rate.
        p: The p-value of such a count.
        level: The p-value at or below which a finding counts.
        dispersion: How much more the past's counts vary than a Poisson's.
    """

    topic: str
    count: int
    expected: float
    p: float
    level: float
    dispersion: float

    @property
    def ratio(self) -> float:
        """The count over the expected; infinite where nothing is expected."""
        return self.count / self.expected if self.expected else math.inf


@dataclass(frozen=True)
class Look:
    """All topics at the end of a step.

    Attributes:
        at: The step's end in seconds since 1970.
        figures: Of each topic; empty: too little of the baseline was seen.
    """

    at: float
    figures: tuple[SurgeFigure, ...]


def no_counts(topics: tuple[str, ...], config: SurgesConfig) -> Counts:
    """Before the first row."""
    empty = np.zeros((config.steps_kept, len(topics)), dtype=np.int64)
    row = np.zeros(len(topics), dtype=np.int64)
    return Counts(topics, empty, empty, empty.astype(bool), row, row)


def is_surge(figure: SurgeFigure, config: SurgesConfig) -> bool:
    """Whether there are enough, more than chance explains, and a multiple of the past's rate."""
    enough = figure.count >= config.min_count and figure.ratio >= config.min_ratio
    return enough and figure.p <= figure.level


def is_over(figure: SurgeFigure, config: SurgesConfig) -> bool:
    """Whether not even one look by itself would be surprised, at the usual 5 %."""
    return figure.p > 0.05 or figure.count < config.min_count


def counted_row(counts: Counts, found: list[tuple[str, bool]]) -> Counts:
    """Counts a row of the open step.

    Args:
        counts: Before it.
        found: Its topics, each with whether its answer counts.
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
    """The state before a step far ahead: a silence longer than what is kept is one of that length.

    Args:
        counts: Before.
        step: The number of the step that opens.
        config: Lengths.
    """
    assert counts.step is not None
    if step - counts.step <= config.steps_kept:
        return counts
    # The open step is lost in the silence too: it is older than everything that is kept.
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
        counts: After a step closed.
        config: Lengths and thresholds.
        per_rows: Whether a topic is compared per row; per time otherwise.
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
    """Marks the last closed steps as ones of a topic's surge."""
    surged = counts.surged.copy()
    surged[-steps:, counts.topics.index(topic)] = True
    return replace(counts, surged=surged)


def _widened(counts: Counts, names: list[str]) -> Counts:
    """With columns for new topics, of which nothing was seen before."""
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
