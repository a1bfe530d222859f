"""The comparison's results as Markdown, between the marks in README.md, and as two plots."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compare import FLOOR, METHODS, SETTINGS, STUDIES, is_shared

Row = Mapping[str, Any]
Setting = tuple[str, int, str, float | None]

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
# Fewest pairs for a test to be worth its name.
FEWEST_PAIRS = 3


def setting_of(row: Row) -> Setting:
    """What a row shares with those that it is compared with."""
    return row["data"], row["sites"], row["partition"], row["epsilon"]


def write(rows: Sequence[Row], folder: Path) -> None:
    """Puts tables into README.md and plots beside it; prints the tables."""
    text = f"{BEGIN}\n\n{tables(rows)}\n\n{END}"
    readme = folder / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + text + after, encoding="utf-8")
    print(text)
    plot_settings(rows, folder / "settings.png")
    plot_epsilons(rows, folder / "epsilons.png")


def tables(rows: Sequence[Row]) -> str:
    """One table a setting, and what pairs over all settings say."""
    by_setting = defaultdict(list)
    for row in rows:
        by_setting[setting_of(row)].append(row)
    parts = []
    for data, sites, partition, epsilon, _ in SETTINGS:
        chosen = by_setting.get((data, sites, partition, epsilon))
        if chosen:
            parts.append(_table(chosen, data, sites, partition, epsilon))
    private = [row for row in rows if row["epsilon"] is not None and not STUDIES[row["data"]].fixed]
    for title, chosen in (
        ("All settings with privacy", private),
        ("ε = 8", [row for row in private if row["epsilon"] == 8.0]),
        ("ε = 1", [row for row in private if row["epsilon"] == 1.0]),
    ):
        parts.append(_pairs(chosen, title))
    return "\n\n".join(parts)


def _table(
    rows: Sequence[Row], data: str, sites: int, partition: str, epsilon: float | None
) -> str:
    shown = "without privacy" if epsilon is None else f"ε = {epsilon:g}"
    lines = [
        f"**{data}, {sites} sites, {partition}, {shown}**",
        "",
        "| method | α | rate | accuracy | runs | minus the probe of the same noise "
        "| bytes up, whole study | aggregation error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = {row["seed"]: row["reached"] for row in rows if row["method"] == method}
        if not mine:
            continue
        ((alpha, rate),) = {(r["alpha"], r["rate"]) for r in rows if r["method"] == method}
        scale = "" if method in FLOOR.values() else f"{alpha:g}"
        floor = _floor(rows, method)
        apart = [mine[seed]["accuracy"] - floor[seed] for seed in mine if seed in floor]
        up = max(reached["bytes"] * reached["rounds"] for reached in mine.values())
        errors = [reached["error"] for reached in mine.values() if reached["error"] is not None]
        reached = _spread([one["accuracy"] for one in mine.values()])
        lines.append(
            f"| {method} | {scale} | {rate:g} | {reached} | {len(mine)} | "
            f"{'' if method in FLOOR.values() else _spread(apart, sign=True)} | {up:,} | "
            f"{f'{statistics.mean(errors):.2g}' if errors else '–'} |"
        )
    return "\n".join(lines)


def _floor(rows: Iterable[Row], method: str) -> dict[int, float]:
    """The probe's accuracy by seed, with as much noise as the method's."""
    floor = FLOOR[is_shared(method)]
    return {row["seed"]: row["reached"]["accuracy"] for row in rows if row["method"] == floor}


def _pairs(rows: Sequence[Row], title: str) -> str:
    """Differences over settings with privacy, pair by pair."""
    from scipy import stats

    lines = [
        f"**{title}, paired by setting and seed** (t-test, two-sided; the last column is corrected "
        "for the number of rows, by Holm)",
        "",
        "| method | against | pairs | mean difference | p | p, corrected |",
        "|---|---|---|---|---|---|",
    ]
    accuracy = {
        (setting_of(row), row["seed"], row["method"]): row["reached"]["accuracy"] for row in rows
    }
    questions = [(method, FLOOR[is_shared(method)]) for method in METHODS]
    questions += [
        (method, method.removesuffix(", shared noise")) for method in METHODS if is_shared(method)
    ]
    found = []
    for method, other in questions:
        if method == other:
            continue
        apart = [
            value - accuracy[setting, seed, other]
            for (setting, seed, name), value in accuracy.items()
            if name == method and (setting, seed, other) in accuracy
        ]
        # Equal differences, as a small test set can give, have no deviation to test by.
        if len(apart) < FEWEST_PAIRS or max(apart) - min(apart) < 1e-9:
            continue
        p = float(stats.ttest_1samp(apart, 0.0).pvalue)
        found.append((method, other, len(apart), statistics.mean(apart), p))
    corrected = holm([p for *_, p in found])
    for (method, other, count, mean, p), strict in zip(found, corrected, strict=True):
        lines.append(f"| {method} | {other} | {count} | {mean:+.4f} | {p:.2g} | {strict:.2g} |")
    return "\n".join(lines)


def holm(values: Sequence[float]) -> list[float]:
    """Values of p for all of these tests together (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    corrected, least = [0.0] * len(values), 0.0
    for place, at in enumerate(order):
        least = max(least, min(1.0, (len(values) - place) * values[at]))
        corrected[at] = least
    return corrected


def _spread(values: Sequence[float], *, sign: bool = False) -> str:
    if not values:
        return "–"
    mean = statistics.mean(values)
    shown = f"{mean:+.4f}" if sign else f"{mean:.4f}"
    return shown + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def plot_settings(rows: Sequence[Row], path: Path) -> None:
    """Accuracy of each method, a panel a setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = [s[:4] for s in SETTINGS if any(setting_of(row) == s[:4] for row in rows)]
    settings = [s for s in settings if s[3] is not None]
    across = 4
    down = -(-len(settings) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(2.4 + 2.5 * across, 4.4 * down), sharey=True, squeeze=False
    )
    names = list(METHODS)[::-1]
    for axis in axes.flat[len(settings) :]:
        axis.set_visible(False)
    for axis, setting in zip(axes.flat, settings, strict=False):
        for place, method in enumerate(names):
            values = [
                100 * row["reached"]["accuracy"]
                for row in rows
                if setting_of(row) == setting and row["method"] == method
            ]
            colour = "#b4531f" if is_shared(method) else "#0a5c99"
            axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=4)
            if values:
                axis.plot(
                    statistics.mean(values),
                    place,
                    "|",
                    color=colour,
                    markersize=13,
                    markeredgewidth=2.5,
                )
        data, sites, partition, epsilon = setting
        axis.set_title(f"{data}\n{sites} sites, {partition}, ε = {epsilon:g}", fontsize=9)
        axis.set_xlabel("accuracy, %", fontsize=9)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(names)), names, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_epsilons(rows: Sequence[Row], path: Path) -> None:
    """Accuracy over ε with ten sites, IID: what sharing the noise is worth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8.4, 3.8))
    for method, colour, style in (
        ("private probe", "#0a5c99", "o--"),
        ("gradient rounds, B", "#0a5c99", "o-"),
        ("private probe, shared noise", "#b4531f", "s--"),
        ("gradient rounds, B, shared noise", "#b4531f", "s-"),
    ):
        found = defaultdict(list)
        for row in rows:
            if setting_of(row)[:3] == ("rt_polarity", 10, "iid") and row["method"] == method:
                found[row["epsilon"]].append(100 * row["reached"]["accuracy"])
        levels = sorted(level for level in found if level is not None)
        if levels:
            axis.plot(
                levels,
                [statistics.mean(found[e]) for e in levels],
                style,
                color=colour,
                label=method,
            )
    axis.set_xscale("log")
    axis.set_xticks([1, 3, 8], ["1", "3", "8"])
    axis.minorticks_off()
    axis.set_xlabel("ε of one record added or removed, all rounds, δ = 1e-5")
    axis.set_ylabel("accuracy, %")
    axis.set_title("rt_polarity, 10 sites, IID", fontsize=10)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
