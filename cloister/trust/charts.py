"""Draws points with intervals, one per row, as an SVG without a script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cloister.trust.intervals import Interval

# Width of the names, of the plot, and of the figures beside it; height of a row.
NAME, PLOT, FIGURES, STEP = 190, 380, 230, 26


def whiskers(
    rows: Sequence[tuple[str, Interval]],
    caption: str,
    *,
    zero: bool = False,
    ends: tuple[float, float] | None = None,
) -> str:
    """Draws a chart of points with intervals.

    Args:
        rows: Names and figures, one per row.
        caption: The meaning of the axis.
        zero: Whether the axis includes 0, with a mark, and figures have a sign.
        ends: The ends of the axis; None: from the intervals.

    Returns:
        The chart as HTML; an empty text if there is no row.
    """
    if not rows:
        return ""
    low = min(one.low for _, one in rows) if ends is None else ends[0]
    high = max(one.high for _, one in rows) if ends is None else ends[1]
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    wide = (high - low) or 1.0

    def at(value: float) -> float:
        return NAME + 10 + (PLOT - 20) * (value - low) / wide

    parts = []
    if zero:
        parts.append(
            f'<line class="line" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{STEP * len(rows)}"/>'
        )
    for row, (name, one) in enumerate(rows):
        y = STEP * row + STEP / 2
        sign = "+" if zero else ""
        text = f"{one.value:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"
        parts.append(
            f'<text x="{NAME - 6}" y="{y + 4}" text-anchor="end">{escape(name[:26])}</text>'
            f'<line x1="{at(one.low):.1f}" x2="{at(one.high):.1f}" y1="{y}" y2="{y}" '
            f'stroke="rgb(0,114,178)" stroke-width="2"/>'
            f'<circle cx="{at(one.value):.1f}" cy="{y}" r="4.5" fill="rgb(0,114,178)"/>'
            f'<text class="soft" x="{NAME + PLOT + 6}" y="{y + 4}">{text}</text>'
        )
    width, height = NAME + PLOT + FIGURES, STEP * len(rows)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(caption)}">{"".join(parts)}</svg>'
        f'<p class="soft">{escape(caption)}</p>'
    )
