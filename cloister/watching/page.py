"""Writes a watch's page: current alerts, each feature's PSI over windows, each topic's counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cloister.names import counted
from cloister.report_page import heading, page, paragraph, table

# Size of a chart in pixels, margin for its axis, and most topics that are drawn.
WIDTH, HEIGHT, LEFT, SHOWN_TOPICS = 620, 120, 46, 12


def watch_page(report: Mapping[str, Any], calm: float, alert: float) -> str:
    """Returns the page of a watch as HTML.

    Args:
        report: The document of `report_of`.
        calm: The PSI below which a feature is calm.
        alert: The PSI from which on it may drift.
    """
    drift, surges = report["drift"], report["surges"]
    stands = [f"{one} drifts" for one in drift["stands"]]
    stands += [f"{one} surges" for one in surges["stands"]]
    body = [
        paragraph(
            f"The model {report['model']} ({report['task']}): {counted(report['rows'], 'row')}, "
            f"{counted(drift['windows'], 'window')}, {counted(len(report['alerts']), 'alert')}."
        ),
        paragraph("Now: " + "; ".join(stands), "loud") if stands else paragraph("Nothing stands."),
        paragraph(
            "These figures are computed from private records, and no noise is added to them: the "
            "page stays where the records are.",
            "soft",
        ),
    ]
    if report["alerts"]:
        body += [heading("Alerts"), _alerts(report["alerts"])]
    if drift["last"]:
        body += _drift(drift, calm, alert)
    elif "drift" not in report["unfit"]:
        body.append(
            paragraph(
                f"The first window is open: {drift['in_window']} of {drift['window_rows']} rows."
            )
        )
    if surges["topics"]:
        body += _surges(surges)
    body += _rest(report)
    return page(f"Watch: {report['watch']}", body)


def _alerts(alerts: Sequence[Mapping[str, Any]]) -> str:
    rows = [(one["at"], one["kind"], one["event"], one["message"]) for one in reversed(alerts)]
    return table(["time", "of", "", "what"], rows)


def _drift(drift: Mapping[str, Any], calm: float, alert: float) -> list[str]:
    windows = drift["last"]
    last = windows[-1]
    body = [
        heading("Drift"),
        paragraph(
            f"Windows of {drift['window_rows']} rows against a reference of "
            f"{drift['reference_rows']:,}. A feature drifts if its PSI is {alert:g} or more and "
            f"its test's p is {last['level']:.2g} or less; the level is corrected for all features "
            "and windows (Bonferroni)."
        ),
    ]
    rows = []
    for figure in last["figures"]:
        p = "–" if figure["p"] is None else f"{figure['p']:.2g}"
        told = "drifts" if figure["drifts"] else ("" if figure["psi"] < calm else "changed")
        rows.append(
            (figure["feature"], figure["where"], told, figure["test"], p, _n(figure["psi"]))
        )
    body.append(table(["feature", "most at", "", "test", "p", "PSI"], rows, 2))
    for feature in [figure["feature"] for figure in last["figures"]]:
        values = [
            (window["number"], one["psi"], one["drifts"])
            for window in windows
            for one in window["figures"]
            if one["feature"] == feature
        ]
        lines = [(calm, f"{calm:g}"), (alert, f"{alert:g}")]
        body.append(_chart(f"PSI of {feature}, by window", values, lines))
    return body


def _surges(surges: Mapping[str, Any]) -> list[str]:
    minutes = surges["window_seconds"] / 60
    body = [heading("Topics")]
    if surges["warms_up"]:
        body.append(paragraph("There is not enough past yet to compare with."))
    looks = surges["last"]
    if not looks:
        return body
    by_topic = {
        topic: [
            (n, one)
            for n, look in enumerate(looks)
            for one in look["figures"]
            if one["topic"] == topic
        ]
        for topic in surges["topics"]
    }
    # Show the topics with the smallest p-values of all checks.
    order = sorted(by_topic, key=lambda topic: min((f["p"] for _, f in by_topic[topic]), default=1))
    now = {one["topic"]: one for one in looks[-1]["figures"]}
    rows = [
        (
            topic,
            str(now[topic]["count"]),
            _n(now[topic]["expected"]),
            f"{now[topic]['p']:.2g}",
            f"{now[topic]['level']:.2g}",
            _n(now[topic]["dispersion"]),
        )
        for topic in order
        if topic in now
    ]
    body.append(
        paragraph(
            f"Counted answers in the last {minutes:g} minutes, at {looks[-1]['at']}; expected is "
            "the baseline's rate. A dispersion over 1 means that counts vary more than by chance "
            "alone; the test takes this into account."
        )
    )
    columns = ["topic", "count", "expected", "p", "needed", "dispersion"]
    body.append(table(columns, rows, 5))
    for topic in order[:SHOWN_TOPICS]:
        values = [(n, float(one["count"]), one["p"] <= one["level"]) for n, one in by_topic[topic]]
        expected = by_topic[topic][-1][1]["expected"] if by_topic[topic] else 0.0
        title = f"{topic}: counts of {len(values)} looks"
        body.append(_chart(title, values, [(expected, "expected")]))
    if len(order) > SHOWN_TOPICS:
        more = counted(len(order) - SHOWN_TOPICS, "calmer topic")
        body.append(paragraph(f"Not drawn: {more}.", "soft"))
    return body


def _rest(report: Mapping[str, Any]) -> list[str]:
    body = []
    if report["refused"]["lines"]:
        body.append(heading("Lines that were no rows"))
        rows = [(reason, str(n)) for reason, n in report["refused"]["by_reason"].items()]
        body.append(table(["reason", "lines"], rows, 1))
        first = ", ".join(f"{one['line']}" for one in report["refused"]["first"])
        body.append(paragraph(f"The first ones: {first}.", "soft"))
    box = report["outbox"]
    if box["failing"]:
        body.append(heading("Alerts that did not arrive yet"))
        body.append(table(["address", "why"], [*box["failing"].items()]))
    late = report["surges"]["late_rows"]
    if late:
        body.append(paragraph(f"{counted(late, 'row')} came after their step had closed.", "soft"))
    if report["unfit"]:
        body.append(heading("Not measured"))
        body.append(table(["method", "why"], [*report["unfit"].items()]))
    return body


def _chart(
    title: str,
    values: Sequence[tuple[float, float, bool]],
    lines: Sequence[tuple[float, str]],
) -> str:
    """Draws a line of points with thresholds; findings have another form and colour.

    Args:
        title: The chart's title.
        values: For each point its place, its value, and whether it is a finding.
        lines: The thresholds with their names.
    """
    if not values:
        return ""
    top = max([*(value for _, value, _ in values), *(value for value, _ in lines)]) * 1.1 or 1.0
    first, last = values[0][0], values[-1][0]
    span = (last - first) or 1

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - 90) * (place - first) / span

    def y(value: float) -> float:
        return HEIGHT - 14 - (HEIGHT - 24) * min(value, top) / top

    parts = []
    for value, name in lines:
        parts.append(
            f'<line class="line" x1="{LEFT}" x2="{WIDTH - 90}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}" stroke-dasharray="4 3"/>'
            f'<text class="soft" x="{WIDTH - 84}" y="{y(value) + 4:.1f}">{escape(name)}</text>'
        )
    points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value, _ in values)
    parts.append(
        f'<polyline points="{points}" fill="none" stroke="rgb(0,114,178)" stroke-width="1.5"/>'
    )
    for place, value, found in values:
        if found:
            parts.append(
                f'<path d="M{x(place) - 4:.1f} {y(value) + 4:.1f}h8l-4 -8z" fill="rgb(213,94,0)"/>'
            )
    if len(values) == 1:
        parts.append(
            f'<circle cx="{x(first):.1f}" cy="{y(values[0][1]):.1f}" r="3" fill="rgb(0,114,178)"/>'
        )
    parts.append(
        f'<text class="soft" x="{LEFT - 6}" y="16" text-anchor="end">{escape(_n(top))}</text>'
        f'<text class="soft" x="{LEFT - 6}" y="{HEIGHT - 10}" text-anchor="end">0</text>'
    )
    return (
        f"<h3>{escape(title)}</h3>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "∞"
