"""Draws the plots of an audit report with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cloister.evidence.fonts import fonts_for, literal
from cloister.evidence.spending_series import (
    CAP,
    COLOURS,
    HEADROOM,
    SpendingSeries,
    cap_words,
    caps,
)

# Most sites that a legend names; with more, there is no legend.
NAMED = 10


def spending_plot(sites: Sequence[SpendingSeries]) -> Figure:
    """Plots ε spent by PLD over charged rounds, with each site's cap and remaining budget."""
    figure = Figure(figsize=(8.27, 4.2), layout="constrained")
    draw_spending(figure.subplots(), sites)
    return figure


def draw_spending(axes: Axes, sites: Sequence[SpendingSeries]) -> None:
    """Draws the plot of `spending_plot` into a part of a larger figure.

    Args:
        axes: The axes to draw into; their title and labels are set.
        sites: A series for each site; those without a finite ε are left out.
    """
    known = [one for one in sites if one.pld]
    named, fonts = [], fonts_for(one.name for one in known)
    for index, one in enumerate(known):
        colour = COLOURS[index % len(COLOURS)]
        # Equal plans give equal curves: dashes of different phase let all of them show.
        style = (4 * index, (4, 4 * (len(known) - 1))) if len(known) > 1 else "solid"
        numbers, spent = zip((0, 0.0), *one.pld, strict=True)
        axes.step(numbers, spent, where="post", color=colour, linestyle=style, linewidth=2)
        # Solid, because a legend may show nothing of a dashed line.
        named.append(Line2D([], [], color=colour, linewidth=2, label=literal(fonts, one.name)))
        if one.ahead:
            axes.plot(*zip(*one.ahead, strict=True), linestyle=":", color=colour)
    highest = max((one.highest() for one in known), default=0.0)
    drawn, far = caps(known, highest)
    axes.text(0.99, 0.98, far, ha="right", va="top", color=CAP, size=8, transform=axes.transAxes)
    for cap in drawn:
        axes.axhline(cap, color=CAP, linewidth=1)
        axes.annotate(
            cap_words(cap),
            (0.01, cap),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color=CAP,
            size=8,
        )
    axes.set(
        xlabel="charges (rounds, private evaluations, votes)",
        ylabel="ε (PLD)",
        title="ε spent so far at each site (indication, at half of the budget's δ)",
    )
    axes.set_ylim(0, max([highest, *drawn]) * HEADROOM or None)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if named and len(sites) <= NAMED:
        shown = "".join(str(line.get_label()) for line in named)
        axes.legend(handles=named, loc="lower right", prop={"family": fonts.families(shown)})
    if not named:
        axes.text(0.5, 0.5, "no finite ε", ha="center", transform=axes.transAxes)


def conformance_plot(checks: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots where each check's figure lies between its limits."""
    figure = Figure(figsize=(8.27, 0.6 + 0.24 * len(checks)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(0, 1, color="#e8f0e8")
    for row, check in enumerate(reversed(checks)):
        place = _place(check)
        axes.plot(
            place,
            row,
            "o" if not check["refuted"] else "X",
            color=COLOURS[3] if not check["refuted"] else CAP,
        )
    axes.set_yticks(range(len(checks)), [check["name"] for check in reversed(checks)], size=8)
    axes.set_xticks([0, 1], ["least allowed", "most allowed"])
    axes.set_xlim(-0.3, 1.3)
    axes.set_title("Conformance: each figure within its limits", size=10)
    return figure


def empirical_plot(audits: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots the lower bounds on ε that attacks gave, beside the claimed ε."""
    figure = Figure(figsize=(8.27, 0.9 + 0.5 * len(audits)), layout="constrained")
    axes = figure.subplots()
    for row, audit in enumerate(reversed(audits)):
        axes.barh(row, audit["epsilon_lower_bound"], color=COLOURS[3], height=0.5)
        claimed = audit["epsilon_claimed"]
        if claimed is not None:
            axes.plot([claimed] * 2, [row - 0.4, row + 0.4], color=CAP, linewidth=2)
    axes.set_yticks(range(len(audits)), [audit["attack"] for audit in reversed(audits)], size=8)
    axes.set_xlabel("ε: lower bound by attack (bar), claimed (line)")
    axes.set_xlim(left=0)
    return figure


def _place(check: Mapping[str, Any]) -> float:
    """Returns a figure's place: 0 at its lower limit, 1 at its upper, else at the margin."""
    low, high, figure = check["low"], check["high"], check["figure"]
    if figure is None or math.isnan(figure):
        return 1.2
    if high == low:
        return 0.0 if figure == low else 1.2
    return float(min(max((figure - low) / (high - low), -0.2), 1.2))
