"""The three pages as HTML, from their facts; everything that others wrote is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cloister.serving.charts import bars, gauge, lanes, line

_pages = Environment(
    loader=PackageLoader("cloister.serving"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_pages.filters["when"] = lambda stamp: str(stamp)[:16].replace("T", " ")
_pages.globals.update(bars=bars, gauge=gauge, lanes=lanes, line=line)


def number(value: float | None) -> str:
    """An ε as a page shows it; one that was not recomputed for a row is a dash."""
    return "–" if value is None else f"{value:.4f}"


def coordinator_page(facts: dict[str, Any], live: bool = False) -> str:
    """The coordinator's."""
    return _render("coordinator.html", facts, facts["name"], "coordinator", live)


def site_page(facts: dict[str, Any], live: bool = False) -> str:
    """The site's."""
    sizes = [(f"round {row['round']}", row["bytes"]) for row in facts["releases"][-60:]]
    return _render("site.html", facts, facts["site"], "site", live, chart_bytes=sizes)


def auditor_page(facts: dict[str, Any], live: bool = False) -> str:
    """The auditor's."""
    curves = {
        name: [
            (at, row[field])
            for at, row in enumerate(facts["charges"], start=1)
            if row[field] is not None
        ]
        for name, field in (("PLD", "epsilon_pld"), ("RDP", "epsilon_rdp"))
    }
    return _render("auditor.html", facts, "Ledger", "auditor", live, curves=curves)


def refresher() -> str:
    """The script that keeps a live page fresh."""
    return _pages.get_template("refresh.js").render()


def _render(
    template: str, facts: dict[str, Any], title: str, kind: str, live: bool, **more: object
) -> str:
    return _pages.get_template(template).render(
        facts=facts, title=f"{title} · Cloister", kind=kind, live=live, number=number,
        now=datetime.now(UTC).isoformat(timespec="seconds"), **more,
    )  # fmt: skip
