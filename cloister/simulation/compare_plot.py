"""Plots a comparison: the score by setting with its deviation, and over the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloister.files import write_whole
from cloister.simulation.compare import Comparison, Group, numbers
from cloister.simulation.measured import epsilon_text

# Most curves that can be distinguished in one picture.
MOST_CURVES = 10


def plot_comparison(found: Comparison, path: Path) -> None:
    """Draws a comparison into one PNG.

    Args:
        found: The comparison.
        path: The PNG; an existing file is replaced.

    Raises:
        OSError: It cannot be written.
    """
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    scores, curves = figure.subplots(1, 2)
    places = numbers(found.groups, found.fields[0]) if len(found.fields) == 1 else None
    if places is not None and len(places) > 1:
        _line(scores, found, places)
    else:
        _bars(scores, found)
    scores.grid(alpha=0.3)
    _curves(curves, found)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=120, format="png")
    write_whole(path, stream.getvalue())


def _spread(group: Group) -> float:
    return group.deviation or 0.0


def _line(axes: Any, found: Comparison, places: Any) -> None:
    """Plots the score over a field that is a number."""
    (field,) = found.fields
    order = sorted(places, key=lambda place: places[place])
    groups = [found.groups[place] for place in order]
    values = [places[place] for place in order]
    axes.errorbar(
        values,
        [group.mean for group in groups],
        yerr=[_spread(group) for group in groups],
        marker="o",
        capsize=4,
        color="#1b5e20",
    )
    if min(values) > 0 and max(values) / min(values) >= 8:  # a log scale from three doublings on
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set(xlabel=_axis_name(field, groups), ylabel=f"test {found.metric}")
    axes.set_title(_title(found))


def _bars(axes: Any, found: Comparison) -> None:
    """Plots the score of each setting as a horizontal bar."""
    groups = found.groups[::-1]
    axes.errorbar(
        [group.mean for group in groups],
        range(len(groups)),
        xerr=[_spread(group) for group in groups],
        fmt="o",
        capsize=4,
        color="#1b5e20",
    )
    axes.set_yticks(range(len(groups)), [_two_lines(group) for group in groups], fontsize=7)
    axes.set_ylim(-0.5, len(groups) - 0.5)
    axes.set_xlabel(f"test {found.metric}")
    axes.set_title(_title(found))


def _curves(axes: Any, found: Comparison) -> None:
    """Plots the mean score over the rounds that all runs of a setting have scored."""
    from matplotlib.ticker import MaxNLocator

    for group in found.groups[:MOST_CURVES]:
        scored = [dict(run.curve) for run in group.runs]
        rounds = sorted(set.intersection(*(set(one) for one in scored)))
        means = [sum(one[number] for one in scored) / len(scored) for number in rounds]
        axes.plot(rounds, means, marker="o", markersize=3, label=_literal(group.label))
    left = len(found.groups) - MOST_CURVES
    more = f" (the first {MOST_CURVES} of {len(found.groups)} settings)" if left > 0 else ""
    axes.set(xlabel="round", ylabel=f"test {found.metric}", title=f"over the rounds{more}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _title(found: Comparison) -> str:
    counts = {len(group.runs) for group in found.groups}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    return "one seed each" if counts == {1} else f"mean ± s.d. over {seeds} seeds"


def _axis_name(field: str, groups: list[Group]) -> str:
    """Returns the field's name; for ε with unit, δ and neighbours."""
    promise = groups[0].promise
    if field != "privacy.epsilon" or promise is None:
        return field
    return f"ε promised (δ = {promise.delta:g}, one {promise.unit}, {promise.neighbouring})"


def _two_lines(group: Group) -> str:
    promise = group.promise
    of = f", δ {promise.delta:g}, one {promise.unit}" if promise is not None else ""
    return f"{_literal(group.label)}\nε {epsilon_text(promise)}{of}"


def _literal(label: str) -> str:
    """Escapes a label, so that matplotlib does not read a user's `$` as mathematics."""
    from cloister.evidence.fonts import fonts_for, literal

    return literal(fonts_for([label]), label)
