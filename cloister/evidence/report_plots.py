"""The plots of an audit's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cloister.evidence.fonts import fonts_for
from cloister.ledger.replay import ChargedRound, Forecast

# Sites that a legend names; of more, the lines alone are shown.
NAMED = 10

Spent = Sequence[tuple[str, Sequence[ChargedRound], Forecast | None, float]]


def spending_plot(sites: Spent) -> Figure:
    """ε spent by PLD over charged rounds, with each site's cap and what it still affords.

    Args:
        sites: Name, rounds, forecast and ε of the budget, of each.
    """
    figure = Figure(figsize=(8.27, 4.2), layout="constrained")
    axes = figure.subplots()
    caps, named, fonts = set(), [], fonts_for(site[0] for site in sites)
    for index, (name, rounds, ahead, cap) in enumerate(sites):
        points = [
            (number, charged.epsilon_pld)
            for number, charged in enumerate(rounds, 1)
            if charged.epsilon_pld is not None and math.isfinite(charged.epsilon_pld)
        ]
        if not points:
            continue
        # Equal plans give equal curves: dashes of different phase let all of them show.
        style = (4 * index, (4, 4 * (len(sites) - 1))) if len(sites) > 1 else "solid"
        (line,) = axes.plot(*zip(*points, strict=True), linestyle=style, linewidth=2)
        # Solid: a dash's phase may leave nothing of it in a legend.
        label = fonts.written(name).replace("$", r"\$")  # a dollar would begin mathematics
        named.append(Line2D([], [], color=line.get_color(), linewidth=2, label=label))
        if ahead is not None and ahead.rounds:
            further = [(len(rounds) + more, value) for more, value in ahead.curve]
            axes.plot(*zip(*further, strict=True), linestyle=":", color=line.get_color())
        if math.isfinite(cap):
            caps.add(cap)
    for cap in sorted(caps):
        axes.axhline(cap, color="#b00020", linewidth=1)
        axes.annotate(
            f"cap {cap:.4g}",
            (0.01, cap),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color="#b00020",
            size=8,
        )
    axes.set(
        xlabel="rounds charged",
        ylabel="ε (PLD)",
        title="ε spent so far at each site (indication, at half of the budget's δ)",
    )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if named and len(sites) <= NAMED:
        shown = "".join(str(line.get_label()) for line in named)
        axes.legend(handles=named, loc="lower right", prop={"family": fonts.families(shown)})
    if not named:
        axes.text(0.5, 0.5, "no finite ε", ha="center", transform=axes.transAxes)
    return figure


def conformance_plot(checks: Sequence[Mapping[str, Any]]) -> Figure:
    """Where each check's figure lies between its limits."""
    figure = Figure(figsize=(8.27, 0.6 + 0.24 * len(checks)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(0, 1, color="#e8f0e8")
    for row, check in enumerate(reversed(checks)):
        place = _place(check)
        axes.plot(
            place,
            row,
            "o" if not check["refuted"] else "X",
            color="#1b5e20" if not check["refuted"] else "#b00020",
        )
    axes.set_yticks(range(len(checks)), [check["name"] for check in reversed(checks)], size=8)
    axes.set_xticks([0, 1], ["least allowed", "most allowed"])
    axes.set_xlim(-0.3, 1.3)
    axes.set_title("Conformance: each figure within its limits", size=10)
    return figure


def empirical_plot(audits: Sequence[Mapping[str, Any]]) -> Figure:
    """Lower bounds that attacks gave, beside what is claimed."""
    figure = Figure(figsize=(8.27, 0.9 + 0.5 * len(audits)), layout="constrained")
    axes = figure.subplots()
    for row, audit in enumerate(reversed(audits)):
        axes.barh(row, audit["epsilon_lower_bound"], color="#1b5e20", height=0.5)
        claimed = audit["epsilon_claimed"]
        if claimed is not None:
            axes.plot([claimed] * 2, [row - 0.4, row + 0.4], color="#b00020", linewidth=2)
    axes.set_yticks(range(len(audits)), [audit["attack"] for audit in reversed(audits)], size=8)
    axes.set_xlabel("ε: lower bound by attack (bar), claimed (line)")
    axes.set_xlim(left=0)
    return figure


def _place(check: Mapping[str, Any]) -> float:
    """0 at the least allowed, 1 at the most; what lies outside, at the plot's margin."""
    low, high, figure = check["low"], check["high"], check["figure"]
    if figure is None or math.isnan(figure):
        return 1.2
    if high == low:
        return 0.0 if figure == low else 1.2
    return float(min(max((figure - low) / (high - low), -0.2), 1.2))
