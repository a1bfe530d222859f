"""Pictures of a finished run: its score over the rounds, and what each site was promised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloister.ledger.stated import Stated, shown


def plot_run(
    rows: Sequence[dict[str, Any]],
    metric: str,
    title: str,
    promises: Mapping[str, Stated],
    path: Path,
) -> None:
    """Draws the score over rounds, and the sites' promised ε, into one PNG.

    Args:
        rows: Lines of metrics.jsonl.
        metric: The score shown.
        title: The study's name.
        promises: By site; those of which nothing is known are left out.
        path: The PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    score, promised = figure.subplots(1, 2)
    for name in ("test", "validation"):
        points = [
            (row["round"], row[name][metric])
            for row in rows
            if row.get(name, {}).get(metric) is not None
        ]
        if points:
            score.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    score.set(xlabel="round", ylabel=metric.replace("_", " "), title=f"{title}: {metric}")
    if score.get_legend_handles_labels()[0]:  # matplotlib warns of a legend of nothing
        score.legend()
    score.xaxis.set_major_locator(MaxNLocator(integer=True))
    score.grid(alpha=0.3)
    _promises(promised, promises)
    figure.savefig(path, dpi=120)


def _promises(axes: Any, promises: Mapping[str, Stated]) -> None:
    """A bar for each site, with all that its ε is of beside it."""
    finite = {site: one for site, one in promises.items() if math.isfinite(one.epsilon)}
    axes.set(title="ε promised, not spent so far", xlabel="ε (smaller is better)")
    if not finite:
        text = "no privacy: ε = ∞" if promises else "no certificate: nothing is known"
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
        return
    names = list(finite)[::-1]
    axes.barh(names, [finite[name].epsilon for name in names], color="#90a4ae")
    for row, name in enumerate(names):
        one = finite[name]
        text = f"{shown(one.epsilon, 3)}, δ = {one.delta:g}, one {one.unit}, {one.neighbouring}"
        axes.text(0, row, f" {text}: {one.basis.replace('-', ' ')}", va="center", fontsize=7)
