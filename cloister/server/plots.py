"""Plots of a finished run: score and ε over the rounds, and each site's promised ε."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.evidence.spending_series import COLOURS, SpendingSeries
from cloister.ledger.stated import Stated, shown

if TYPE_CHECKING:
    from cloister.evidence.fonts import Fonts


def plot_run(
    rows: Sequence[dict[str, Any]],
    metric: str,
    title: str,
    promises: Mapping[str, Stated],
    path: Path,
    spending: Sequence[SpendingSeries] = (),
) -> None:
    """Draws the score over rounds, ε spent over rounds, and the sites' promised ε, into one PNG.

    Args:
        rows: Lines of metrics.jsonl.
        metric: The score shown.
        title: The study's name.
        promises: By site; sites whose promise is unknown are left out.
        path: The PNG.
        spending: What each site's ledger spent. Empty in a deployment, where the sites have the
            ledgers; then this part is left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from cloister.evidence.fonts import fonts_for, literal
    from cloister.evidence.report_plots import draw_spending

    drawn = [one for one in spending if one.pld]
    parts = 3 if drawn else 2
    figure = Figure(figsize=(4.5 * parts, 3.6), layout="constrained")
    score, *others, promised = figure.subplots(1, parts)
    for axes in others:
        draw_spending(axes, drawn)
        axes.set_title("ε spent so far (indication, at half of δ)")
    for name in ("test", "validation"):
        points = [
            (row["round"], row[name][metric])
            for row in rows
            if row.get(name, {}).get(metric) is not None
        ]
        if points:
            line = {"marker": "o", "markersize": 3, "color": COLOURS[name == "validation"]}
            score.plot(*zip(*points, strict=True), label=name, **line)
    _draw_private(score, rows, metric)
    fonts = fonts_for([title, *promises])
    score.set(xlabel="round", ylabel=metric.replace("_", " "))
    family = fonts.families(title)
    score.set_title(literal(fonts, f"{title}: {metric}"), fontfamily=family)
    if score.get_legend_handles_labels()[0]:  # matplotlib warns of an empty legend
        score.legend()
    score.xaxis.set_major_locator(MaxNLocator(integer=True))
    score.grid(alpha=0.3)
    _promises(promised, promises, fonts)
    figure.savefig(path, dpi=120)


def _draw_private(axes: Any, rows: Sequence[dict[str, Any]], metric: str) -> None:
    """Draws private evaluations with their intervals, for the population where one is stated."""
    found = [
        (row["round"], row["private_evaluation"]["scores"][metric])
        for row in rows
        if metric in row.get("private_evaluation", {}).get("scores", {})
    ]
    points = [
        (number, one["value"], *(one["population"] or one["held_out"]))
        for number, one in found
        if None not in (one["value"], *(one["population"] or one["held_out"]))
    ]
    if points:
        at, values, low, high = map(list, zip(*points, strict=True))
        lengths = [
            [value - end for value, end in zip(values, low, strict=True)],
            [end - value for value, end in zip(values, high, strict=True)],
        ]
        style = {"fmt": "s", "markersize": 3, "capsize": 2, "color": COLOURS[2]}
        axes.errorbar(at, values, yerr=lengths, label="private evaluation, 95 %", **style)


def _promises(axes: Any, promises: Mapping[str, Stated], fonts: Fonts) -> None:
    """A bar for each site, with the ε, δ, unit, neighbours and basis beside it."""
    from cloister.evidence.fonts import literal

    finite = {site: one for site, one in promises.items() if math.isfinite(one.epsilon)}
    axes.set(title="ε promised, not spent so far", xlabel="ε (smaller is better)")
    if not finite:
        text = "no privacy: ε = ∞" if promises else "no certificate: nothing is known"
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
        return
    names = list(finite)[::-1]
    rows = range(len(names))
    axes.barh(rows, [finite[name].epsilon for name in names], color=COLOURS[0], alpha=0.35)
    axes.set_yticks(
        rows,
        [literal(fonts, name) for name in names],
        fontfamily=fonts.families("".join(names)),
    )
    for row, name in enumerate(names):
        one = finite[name]
        text = f"{shown(one.epsilon, 3)}, δ = {one.delta:g}, one {one.unit}, {one.neighbouring}"
        axes.text(0, row, f" {text}: {one.basis.replace('-', ' ')}", va="center", fontsize=7)
