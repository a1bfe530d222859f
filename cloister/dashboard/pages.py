"""Renders facts as self-contained pages, with style and pictures inside and no external link."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cloister import __version__
from cloister.dashboard import charts, coordinator, estimates, spending
from cloister.dashboard import formatting as words
from cloister.dashboard.timeline import CellState
from cloister.privacy.estimated_scores import shown_estimate

HERE = Path(__file__).parent
# The sign of each state, so that colour is not needed, and its class in the style sheet.
SIGNS = {
    CellState.WAITING: ("·", "waiting"),
    CellState.TRAINING: ("▸", "training"),
    CellState.SENT: ("✓", "sent"),
    CellState.LATE: ("~", "late"),
    CellState.LOST: ("!", "late"),
    CellState.REFUSED: ("✕", "refused"),
    CellState.SPENT: ("½", "waiting"),
    CellState.RETIRED: ("–", "retired"),
    CellState.CUT_OFF: ("/", "waiting"),
}
WORDS = ("epsilon_words", "size_words", "seconds_words", "when", "short", "counted")


@dataclass(frozen=True)
class Link:
    """A link from one page of a dashboard to another.

    Attributes:
        label: Its text.
        target: Its relative address.
    """

    label: str
    target: str


def render(
    template: str,
    facts: object,
    now: datetime,
    *,
    links: Sequence[Link] = (),
    is_live: bool = False,
) -> str:
    """Renders a whole page; every text of the facts is escaped.

    Args:
        template: Name of the template, without suffix.
        facts: The facts that it shows.
        now: The time of the page.
        links: Links to the dashboard's pages, including this one.
        is_live: Whether it reloads itself every few seconds.
    """
    page = _environment().get_template(f"{template}.html")
    return page.render(
        facts=facts,
        links=links,
        is_live=is_live,
        policy="" if is_live else content_policy(is_live=False),
        ago=partial(words.ago, now=now),
        now=now.astimezone(UTC).isoformat(timespec="seconds"),
        style=Markup(style()),
    )


@cache
def style() -> str:
    """Returns the style sheet, which every page contains."""
    return (HERE / "assets" / "style.css").read_text(encoding="utf-8")


@cache
def refresher() -> str:
    """Returns the only script, which fetches the page again and replaces its content."""
    return (HERE / "assets" / "refresh.js").read_text(encoding="utf-8")


@cache
def content_policy(*, is_live: bool) -> str:
    """Returns the Content-Security-Policy: this style and, on a live page, our script."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    rules = [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if is_live:  # a saved file's policy cannot have frame-ancestors
        rules += ["script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    return "; ".join(rules)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update({name: getattr(words, name) for name in WORDS})
    found.globals.update(
        charts=charts,
        estimates=estimates,
        shown_estimate=shown_estimate,
        spending=spending,
        signs=SIGNS,
        in_full=coordinator.IN_FULL,
        version=__version__,
    )
    return found
