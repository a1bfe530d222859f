"""Pictures of a finished run: its score and its sites' ε over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot_run(
    rows: Sequence[dict[str, Any]], metric: str, title: str, promise: str, path: Path
) -> None:
    """Draws score and ε over rounds into one PNG.

    Args:
        rows: Lines of metrics.jsonl.
        metric: The score shown.
        title: The study's name.
        promise: What the ε is of: unit, neighbours, δ.
        path: The PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    score, spent = figure.subplots(1, 2)
    for name in ("test", "validation"):
        points = [
            (row["round"], row[name][metric])
            for row in rows
            if row.get(name, {}).get(metric) is not None
        ]
        if points:
            score.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    score.set(xlabel="round", ylabel=metric.replace("_", " "), title=f"{title}: {metric}")
    score.legend()
    sites = sorted({site for row in rows for site in row["epsilon"]})
    for index, site in enumerate(sites):
        points = [(row["round"], row["epsilon"].get(site)) for row in rows]
        known = [(number, value) for number, value in points if value is not None]
        if known:
            # Equal plans give equal curves: dashes of different phase let all of them show.
            style = (4 * index, (4, 4 * (len(sites) - 1))) if len(sites) > 1 else "solid"
            spent.plot(*zip(*known, strict=True), label=site, linestyle=style)
    spent.set(xlabel="round", ylabel="ε spent", title=f"ε spent ({promise})")
    if spent.lines and len(sites) <= 10:
        # Solid: a dash's phase may leave nothing of it in a legend.
        solid = [Line2D([], [], color=line.get_color()) for line in spent.lines]
        spent.legend(solid, [str(line.get_label()) for line in spent.lines])
    if not spent.lines:
        spent.text(0.5, 0.5, "no privacy: ε = ∞", ha="center", transform=spent.transAxes)
    for axes in (score, spent):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
