"""A run's figures as one page: `python -m benchmarks.page FILE.json PAGE.html`.

The page has no script and loads nothing: the machine and its load, every figure with its goal, the
peers' CPU and wall times, and plots.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import bars, drawn, panels
from benchmarks.recorded_rows import recorded
from cloister.report_page import heading, page, paragraph, table

SENSE = {"at least": "≥", "at most": "≤"}


def page_of(document: Mapping[str, Any]) -> str:
    """Returns the page of a run in HTML.

    Args:
        document: What `benchmarks` or `benchmarks.quick` wrote.
    """
    figures: Sequence[Mapping[str, Any]] = document["figures"]
    machine = dict(document["machine"])
    load = machine.pop("load")
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    parts = [
        paragraph(f"Measured on: {about}."),
        paragraph(
            f"Load before: {_listed(load)}; after: {_listed(document['load_after'])}. Figures are "
            "ratios of CPU time within this run, medians of turns; on a loaded machine trust no "
            "absolute time.",
            "soft",
        ),
        heading("Figures"),
        _figures(figures),
    ]
    peers: Sequence[Mapping[str, Any]] = document.get("peers", [])
    if peers:
        parts += [heading("Beside others"), _peers(peers)]
    ratios = {one["name"]: one["value"] for one in figures if "÷ ours" in one["name"]}
    if ratios:
        goals = {one["name"]: one["bound"] for one in figures}
        parts.append(bars(ratios, goals, "theirs ÷ ours (the mark is the goal)"))
    absent: Mapping[str, str] = document.get("not_run", {})
    if absent:
        rows = [(name, why) for name, why in absent.items()]
        parts += [heading("Not run"), table(("what", "why"), rows)]
    parts += [
        heading("Cost by size"),
        paragraph("From the measurements kept in benchmarks/recorded/, not from this run.", "soft"),
        drawn(panels(recorded())),
    ]
    return page("Cloister: speed and memory", parts)


def _figures(figures: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in figures:
        value, bound, sense = one["value"], one["bound"], one["sense"]
        holds = value >= bound if sense == "at least" else value <= bound
        goal = f"{SENSE[sense]} {bound:g}"
        rows.append((one["name"], "holds" if holds else "MISSED", f"{value:.4g}", goal))
    return table(("what", "verdict", "found", "goal"), rows, numbers=2)


def _peers(peers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            one["work"],
            one["name"],
            f"{one['cpu']:.3f}",
            f"{one['wall']:.3f}",
            f"{one['peak'] / 1e6:,.0f}" if one.get("peak") else "",
        )
        for one in peers
    ]
    return table(("work", "side", "CPU s", "wall s", "peak MB"), rows, numbers=3)


def _listed(load: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in load)


def main() -> None:
    """Writes the page of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="what --json of a benchmark wrote")
    parser.add_argument("page", type=Path, help="the page to write")
    asked = parser.parse_args()
    document = json.loads(asked.json.read_text(encoding="utf-8"))
    asked.page.write_text(page_of(document), encoding="utf-8")


if __name__ == "__main__":
    main()
