"""Plots of cost for docs/performance.md and the benchmarks' page, as small SVG files.

    python -m benchmarks.plots

Draws `docs/images/cost.svg` from the measurements in `benchmarks/recorded/`: a study by its
records, a step by tokens and by trained parameters, and a coordinator's round by its sites.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.recorded_rows import Recorded, recorded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "cost.svg"
# Okabe and Ito 2008, Color Universal Design: differ with every kind of colour blindness.
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What costs.
        x: What it grows with.
        y: The cost, with its unit.
        curves: Points by label; without a label there is no legend.
        decades: Whether the cost's axis is logarithmic, as the other is; else it begins at 0.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Points]
    decades: bool = True


def panels(found: Recorded) -> list[Panel]:
    """The four panels of docs/performance.md."""
    milliseconds = {
        name: [(x, 1e3 * y) for x, y in points] for name, points in found.curves.items()
    }
    return [
        Panel(
            "A study of two rounds, by records of its site",
            "records of 128 tokens",
            "CPU seconds",
            {"": found.rows["study: CPU seconds by records"]},
        ),
        Panel(
            "A private step of MiniLM, by length",
            "tokens of a record",
            "CPU ms a record",
            {"": milliseconds["step by tokens"]},
        ),
        Panel(
            "A private step, by trained parameters",
            "trained parameters (rank 1 to 128)",
            "CPU ms a record",
            {"": milliseconds["step by parameters"]},
            decades=False,
        ),
        Panel(
            "A coordinator's round, by connected sites",
            "sites",
            "CPU ms, all sites",
            {
                process: found.sites_of("cpu_ms_per_site_and_round", process)
                for process in ("superlink", "gate", "executor")
            },
        ),
    ]


def drawn(found: Sequence[Panel], columns: int = 2) -> str:
    """Draws panels and returns them as SVG, the same text for the same points."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = -(-len(found) // columns)
    # Text stays text, which is small and searchable; a fixed salt gives equal ids each time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cloister"}):
        figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
        for axes, panel in zip(
            figure.subplots(rows, columns, squeeze=False).flat, found, strict=False
        ):
            _draw(axes, panel)
        return _svg(figure)


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for (label, points), colour in zip(
        panel.curves.items(), (BLUE, VERMILION, GREEN), strict=False
    ):
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=label)
    axes.set_xscale("log")
    for axis in [axes.xaxis, axes.yaxis] if panel.decades else [axes.xaxis]:
        if axis is axes.yaxis:
            axes.set_yscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_minor_formatter(NullFormatter())
    if not panel.decades:
        axes.set_ylim(bottom=0)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x, fontsize=9)
    axes.set_ylabel(panel.y, fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    axes.grid(visible=True, which="major", color="#d9d9d9", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if any(panel.curves):
        axes.legend(frameon=False, fontsize=8)


def _short(value: float) -> str:
    """A tick's number: 500, 20k, 5M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,g}"


def bars(values: Mapping[str, float], goals: Mapping[str, float], label: str) -> str:
    """Draws one bar a name, with a mark at its goal, and returns the SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cloister"}):
        figure = Figure(figsize=(8.5, 0.6 + 0.34 * len(values)), layout="constrained")
        axes: Any = figure.subplots()
        places = range(len(values))
        axes.barh(places, list(values.values()), color=BLUE, height=0.6)
        for place, name in enumerate(values):
            if name in goals:
                axes.plot([goals[name]] * 2, [place - 0.4, place + 0.4], color=VERMILION, lw=2)
        axes.set_yticks(places, list(values), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return _svg(figure)


def _svg(figure: Drawing) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # Without the declaration it can also stand inside a page.
    text = out.getvalue()
    return "\n".join(line.rstrip() for line in text[text.index("<svg") :].splitlines()) + "\n"


def main() -> None:
    """Writes the image of docs/performance.md."""
    IMAGE.write_text(drawn(panels(recorded())), encoding="utf-8")
    print(f"{IMAGE}: {IMAGE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
