"""Shows a running study on a terminal: a lane for each site, a line for each closed round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloister.cli.terminal import Terminal

# The mark and colour of each event in a site's lane.
MARKS = {
    "preparing": ("·", "dim"),
    "waiting": ("?", "yellow"),
    "ready": ("○", "dim"),
    "asked": ("·", "dim"),
    "answered": ("█", "green"),
    "lost": ("!", "yellow"),
    "late": ("~", "yellow"),
    "refused": ("x", "red"),
    "retired": ("–", "blue"),
}
WORDS = {
    "preparing": "preparing",
    "waiting": "waits for its operator's approval",
    "ready": "ready",
    "asked": "at work",
    "answered": "sent",
    "lost": "lost on the way",
    "late": "late",
    "refused": "refused",
    "retired": "its budget is used up",
}
# Events that get a line without a live display.
TOLD = ("untrained", "closed", "ready", "refused", "lost", "late", "retired", "evaluated")
# Most rounds shown in a lane, and most closed rounds below; the run's folder has all.
WIDTH, SHOWN = 60, 12


class RunDisplay:
    """Shows a run's events on stderr: live on a terminal, else one line per event.

    Args:
        name: The run's.
        sites: The sites that take part.
    """

    def __init__(self, name: str, sites: Sequence[str]) -> None:
        self._console = Terminal(stderr=True)
        self._name = name
        self._lanes: dict[str, dict[int, str]] = {site: {} for site in sites}
        self._closed: list[str] = []
        self._note = ""
        self._live = Live(console=self._console, refresh_per_second=4)

    def __enter__(self) -> RunDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes one event of the journal."""
        what, site = str(event["what"]), str(event.get("site", ""))
        if what in MARKS and site in self._lanes:
            self._lanes[site][int(event["round"])] = what
        elif what in ("closed", "untrained", "evaluated"):
            self._closed.append(_line(event))
        elif "text" in event:
            self._note = f"{what}: {event['text']}"
        if self._console.is_terminal:
            self._live.update(self._drawn())
        elif what in TOLD or "text" in event:
            self._console.print(_line(event), highlight=False, soft_wrap=True, markup=False)

    def _drawn(self) -> Group:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for site, lane in self._lanes.items():
            drawn = Text()
            for number in sorted(lane)[-WIDTH:]:
                mark, colour = MARKS[lane[number]]
                drawn.append(mark, style=colour)
            state = WORDS[lane[max(lane)]] if lane else "waiting"
            table.add_row(Text(site, style="bold"), drawn, Text(state, style="dim"))
        legend = Text(
            "○ ready  █ sent  · at work  ! lost on the way  ~ late  x refused  – budget used up  "
            "? to be approved",
            style="dim",
        )
        rows = [Text(line) for line in self._closed[-SHOWN:]]
        note = [Text(self._note, style="yellow")] if self._note else []
        return Group(Text(self._name, style="bold"), table, legend, *rows, *note)


def _line(event: Mapping[str, Any]) -> str:
    scores = event.get("scores", {}).get("test", {})
    shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    if event["what"] == "untrained":
        return f"round   0  untrained  {shown}"
    if event["what"] == "evaluated":
        return f"round {event['round']:>3}  private evaluation: {event['estimate']}"
    if event["what"] == "closed":
        spent = f"{event['seconds']:>6.1f} s  {event['bytes']:,} bytes"
        return f"round {event['round']:>3}  {spent}  {shown}"
    about = [f"round {event['round']}" if event.get("round") else "", str(event.get("site", ""))]
    words = " ".join(word for word in about if word)
    return f"{words or 'run'}: {event['what']} {event.get('text', '')}".rstrip()
