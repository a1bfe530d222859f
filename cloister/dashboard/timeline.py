"""Builds the timeline of each site in a run: the outcome of each round, from the run's journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from cloister.dashboard.formatting import moment

# Most rounds that a page shows; the run's folder has all of them.
SHOWN = 60


class CellState(StrEnum):
    """The outcome of a round at a site; the value is the word that a page shows."""

    WAITING = "waiting"
    TRAINING = "training"
    SENT = "sent"
    LATE = "late"
    LOST = "lost on the way"
    REFUSED = "refused"
    SPENT = "spent without an update"
    RETIRED = "retired"
    CUT_OFF = "cut off"


# The state of a cell after each kind of event in the journal.
SEEN = {
    "asked": CellState.TRAINING,
    "answered": CellState.SENT,
    "late": CellState.LATE,
    "lost": CellState.LOST,
    "refused": CellState.REFUSED,
    "retired": CellState.RETIRED,
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The state of one round at one site.

    Attributes:
        round: The round, from 1.
        state: Its outcome.
        seconds: Seconds from request to answer; None: there was no answer.
        share: `seconds` over those of the round's slowest answer, from 0 to 1.
        why: The coordinator's reason, if it gave one.
    """

    round: int
    state: CellState = CellState.WAITING
    seconds: float | None = None
    share: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Timeline:
    """The timelines of all sites of a run.

    Attributes:
        rounds: Numbers of the rounds, oldest first.
        lanes: Cells by site, one for each round.
    """

    rounds: tuple[int, ...]
    lanes: Mapping[str, tuple[Cell, ...]]

    @property
    def shown(self) -> tuple[int, ...]:
        """Returns the rounds that a page shows."""
        return self.rounds[-SHOWN:]


def timeline_of(
    sites: Sequence[str],
    events: Iterable[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    *,
    is_going: bool,
) -> Timeline:
    """Builds every site's timeline from the run's events.

    Args:
        sites: The sites that take part.
        events: The run's journal, oldest first.
        rows: Its closed rounds (metrics.jsonl).
        is_going: Whether the run may still receive answers.
    """
    cells, retired, refused = _from_journal(sites, events)
    closed = {int(row["round"]): row for row in rows}
    rounds = tuple(sorted({*closed, *(number for _, number in cells)}))
    slowest = dict.fromkeys(rounds, 0.0)
    for (_, number), cell in cells.items():
        slowest[number] = max(slowest[number], cell.seconds or 0.0)

    def settled(site: str, number: int) -> Cell:
        cell = cells.get((site, number), Cell(round=number))
        if site in refused:
            return Cell(round=number, state=CellState.REFUSED, why=refused[site])
        gone = site in retired and number >= retired[site]
        state = CellState.RETIRED if gone else _settled(cell, site, closed.get(number), is_going)
        took = 0.0 if gone else cell.seconds or 0.0
        share = took / slowest[number] if slowest[number] else 0.0
        return replace(cell, state=state, share=share)

    return Timeline(rounds, {site: tuple(settled(site, n) for n in rounds) for site in sites})


def _from_journal(
    sites: Sequence[str], events: Iterable[Mapping[str, Any]]
) -> tuple[dict[tuple[str, int], Cell], dict[str, int], dict[str, str]]:
    """Reads from the journal the cells, when a site retired, and why a site does not take part."""
    cells: dict[tuple[str, int], Cell] = {}
    asked: dict[tuple[str, int], object] = {}
    retired: dict[str, int] = {}
    refused: dict[str, str] = {}
    for event in events:
        what, site = str(event.get("what")), event.get("site")
        state = SEEN.get(what)
        if event.get("round") == 0:  # whether it takes part; a later answer replaces an earlier one
            if what == "refused":
                refused[str(site)] = str(event.get("text", ""))
            elif what == "ready":
                refused.pop(str(site), None)
            continue
        if state is None or site not in sites:
            continue
        place = (str(site), int(event["round"]))
        seconds = cells[place].seconds if place in cells else None
        if state is CellState.TRAINING:
            asked[place], seconds = event["time"], None
        elif state is CellState.SENT:
            seconds = _seconds(asked.get(place), event["time"])
        elif state is CellState.RETIRED:
            retired.setdefault(*place)
        why = str(event.get("text", ""))
        cells[place] = Cell(round=place[1], state=state, seconds=seconds, why=why)
    return cells, retired, refused


def _settled(cell: Cell, site: str, row: Mapping[str, Any] | None, is_going: bool) -> CellState:
    """Returns a cell's final state, once its round is closed or its run has ended."""
    if row is None:
        cut = cell.state is CellState.TRAINING and not is_going
        return CellState.CUT_OFF if cut else cell.state
    if cell.state is CellState.TRAINING:
        return CellState.LATE  # the round was closed without its answer
    if cell.state is CellState.SENT and site in row.get("missing", ()):
        return CellState.REFUSED if site in row.get("refused", ()) else CellState.SPENT
    return cell.state


def _seconds(asked: object, answered: object) -> float | None:
    start, end = moment(asked), moment(answered)
    return max(0.0, (end - start).total_seconds()) if start and end else None
