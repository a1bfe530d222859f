"""Draws the charts of a run at the coordinator: scores and bytes, by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from cloister.dashboard import svg
from cloister.dashboard.formatting import size_words

# Most lines of one picture; each has its own dash and mark, so that colour is not needed.
MOST_LINES = 3


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Returns the scores between 0 and 1 on the public test set, by metric: (round, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for metric, value in (row.get("test") or {}).items():
            if isinstance(value, float | int) and metric != "loss" and 0 <= value <= 1:
                found.setdefault(metric, []).append((int(row["round"]), float(value)))
    return dict(list(found.items())[:MOST_LINES])


def score_chart(rows: Sequence[Mapping[str, Any]], num_rounds: int) -> Markup:
    """Draws a line for each score over the rounds."""
    scores = scores_of(rows)
    if not scores:
        return Markup("")
    last = max(num_rounds, int(rows[-1]["round"]))
    x, y = svg.across(0, last), svg.upward(1.0)
    labels = [f"{value:g}" for value in svg.ticks(0, 1)]
    marks = [svg.axes(x, y, svg.ticks(0, last, 6, whole=True), labels, "round")]
    for index, (metric, points) in enumerate(scores.items()):
        places = [(x(number), y(value)) for number, value in points]
        marks.append(svg.path(places, f"line s{index}"))
        for (number, value), place in zip(points, places, strict=True):
            said = f"{metric}, round {number}: {value:.4f}"
            marks.append(svg.with_tooltip(dot(place, index), said))
    words = "; ".join(
        f"{metric.replace('_', ' ')} from {points[0][1]:.3f} in round {points[0][0]} to "
        f"{points[-1][1]:.3f} in round {points[-1][0]}"
        for metric, points in scores.items()
    )
    return svg.picture(marks, f"Score on the public test set by round: {words}.")


def bytes_chart(rows: Sequence[Mapping[str, Any]], num_rounds: int) -> Markup:
    """Draws two bars for each round: bytes that the sites sent, and bytes sent to them."""
    if not rows:
        return Markup("")
    both = ("bytes_up", "from the sites"), ("bytes_down", "to the sites")
    most = max(row.get(name, 0) for row in rows for name, _ in both) or 1
    last = max(num_rounds, int(rows[-1]["round"]))
    x, y = svg.across(0.5, last + 0.5), svg.upward(most * 1.12)
    labels = [size_words(value) if value else "0" for value in svg.ticks(0, most * 1.12)]
    marks = [svg.axes(x, y, svg.ticks(1, last, 6, whole=True), labels, "round")]
    width = max(0.6, min(16.0, (x(1.5) - x(0.5)) * 0.36))
    for row in rows:
        number = int(row["round"])
        for side, (name, words) in enumerate(both):
            count = row.get(name, 0)
            left = x(number) + (side - 1) * (width + 0.5) + 0.25
            bar = _bar(left, y(count), width, y(0) - y(count), name)
            marks.append(svg.with_tooltip(bar, f"round {number}, {words}: {count:,} bytes"))
    up, down = (size_words(sum(row.get(name, 0) for row in rows)) for name, _ in both)
    return svg.picture(marks, f"Bytes by round: {up} from the sites and {down} to them in all.")


def _bar(x: float, y: float, width: float, height: float, _class: str) -> Markup:
    return svg.tag(
        "rect", x=round(x, 2), y=y, width=round(width, 2), height=round(height, 2), _class=_class
    )


def dot(place: tuple[float, float], index: int) -> Markup:
    """Draws a mark; each line has its own shape: round, square, diamond."""
    (x, y), style = place, f"dot s{index}"
    if index == 0:
        return svg.tag("circle", cx=x, cy=y, r=3, _class=style)
    turn = {} if index == 1 else {"transform": f"rotate(45 {x:g} {y:g})"}
    return svg.tag(
        "rect",
        x=round(x - 2.6, 2),
        y=round(y - 2.6, 2),
        width=5.2,
        height=5.2,
        _class=style,
        **turn,
    )
