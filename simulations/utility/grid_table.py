"""The tables of docs/utility-tables.md, of the grid's raw rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from grid_rows import CHECKED, NOT_PRIVATE, TEXT_ROWS, by_default, epsilons, runs_on
from grid_store import OUTCOMES, SEEDS, Row, right_ones, where
from sets import PAIRS, SAMPLED, SETS

NOT_RUN = "not run"
SHOWN = (0.5, 1.0, 3.0, 8.0, None)
TITLES = {
    "majority": "most frequent class",
    "TF-IDF": "TF-IDF + linear SVM, pooled, tuned",
    "zero-shot": "zero-shot, by the classes' names",
    "without privacy": "without privacy, tuned",
    "central, tuned": "central DP, tuned",
    "own, by rule": "own noise, rate by rule",
    "shared, by rule": "shared noise, rate by rule",
    "own, by rule, centred": "own noise, rate by rule, built-in centre",
    "shared, by rule, centred": "shared noise, rate by rule, built-in centre",
    "shared, tuned": "shared noise, tuned",
    "levers": "shared noise, levers",
    "whole batches": "shared noise, whole batches",
    "long, tuned": "shared noise, long, tuned",
    "levers, public": "shared noise, levers and 500 public records",
}
# Rows of shared noise that a best setting is chosen from.
PRIVATE = ("shared, tuned", "levers", "whole batches", "long, tuned")
WITH_PUBLIC = (*PRIVATE, "levers, public")
CLOSE, CENTRAL_CLOSE = 1.5, 0.5
# The sets whose distance to training without privacy the first goal is about.
GOAL_SETS = ("rt_polarity", "banking77", "zh_takeaway", "zh_shopping")


class Difference(NamedTuple):
    """Points by which one method is ahead of another on the same test records.

    Attributes:
        points: The mean over seeds.
        deviation: Of the seeds' differences.
        error: The standard error over test records, of the differences' mean over seeds.
    """

    points: float
    deviation: float
    error: float

    def __str__(self) -> str:
        points = f"{self.points:+.1f}".replace("-", "−")
        return f"{points} ± {self.deviation:.1f} ({self.error:.1f})"


def tables(rows: Sequence[Row]) -> str:
    """All tables, as Markdown."""
    parts = [_accuracies(rows, name, base) for name, base in PAIRS]
    parts += [_gains(rows), _best(rows), _goals(rows), _checked(rows)]
    return "\n\n".join(parts)


def difference(one: Sequence[Row], other: Sequence[Row]) -> Difference | None:
    """Compares test runs, seed by seed; a method without seeds has one run for all.

    Returns:
        None if a side was not run.
    """
    if not one or not other:
        return None
    sides = [{row["seed"]: row for row in side} for side in (one, other)]
    found = sorted(max(sides, key=len))
    apart = []
    for seed in found:
        ours, theirs = (
            right_ones(next(iter(side.values())) if len(side) == 1 else side[seed])
            for side in sides
        )
        apart.append(ours.astype(float) - theirs)
    points = [100 * float(part.mean()) for part in apart]
    by_record = np.mean(apart, axis=0)
    return Difference(
        statistics.mean(points),
        statistics.stdev(points) if len(points) > 1 else 0.0,
        100 * float(by_record.std(ddof=1)) / len(by_record) ** 0.5,
    )


def best(rows: Sequence[Row], name: str, epsilon: float, among: Sequence[str]) -> list[Row]:
    """The test runs of the setting with the highest validation mean, of all bases and rows."""
    found: dict[float, list[Row]] = {}
    for row, base in ((row, base) for row in among for data, base in PAIRS if data == name):
        runs = _test(rows, name, base, row, epsilon)
        if runs:
            found.setdefault(validation(rows, runs[0]), runs)
    return found[max(found)] if found else []


def validation(rows: Sequence[Row], run: Row) -> float:
    """The validation mean of a test run's setting."""
    about = {name: value for name, value in run.items() if name not in ("seed", "split", *OUTCOMES)}
    scores = [row["accuracy"] for row in where(rows, **about, split="validation")]
    return statistics.mean(scores) if scores else float("nan")


def _test(
    rows: Sequence[Row], name: str, base: str | None, row: str, epsilon: float | None
) -> list[Row]:
    found = where(rows, data=name, base=base, row=row, split="test", epsilon=epsilon)
    if len({run["seed"] for run in found}) < len(found):
        raise RuntimeError(
            f"{name}, {base}, {row}, ε = {epsilon}: two settings were reported, since what is "
            "chosen from has changed; take these rows out of the file and run the grid again"
        )
    wanted = len(SEEDS) if found and found[0]["method"] == "Head" else 1
    return found if len(found) == wanted else []  # it is still running


def _cell(runs: Sequence[Row]) -> str:
    if not runs:
        return NOT_RUN
    scores = [run["accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{spread}"


def _part(name: str, base: str) -> str:
    records = SAMPLED.get((name, base))
    return "" if records is None else f", {records:,} records alone"


def _accuracies(rows: Sequence[Row], name: str, base: str) -> str:
    sites = SETS[name].sites
    lines = [
        f"**{name}, {base}, {sites} sites{_part(name, base)}**",
        "",
        "| what | ε = 0.5 | ε = 1 | ε = 3 | ε = 8 | ε = ∞ |",
        "|---|---|---|---|---|---|",
    ]
    for row, title in TITLES.items():
        if not runs_on(row, base):
            continue
        cells = [
            _cell(_test(rows, name, None if row in TEXT_ROWS else base, row, epsilon))
            if epsilon in epsilons(row)
            else "–"
            for epsilon in SHOWN
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


# What each lever gains over what stands behind it; the last is the price of privacy. "default" is
# the row of a recipe that states neither rate, clip bound nor centre.
GAINS = {
    "shared − own noise, defaults": ("shared, default", "own, default"),
    "shared noise − central DP, tuned": ("shared, tuned", "central, tuned"),
    "levers − defaults": ("levers", "shared, default"),
    "whole batches − levers": ("whole batches", "levers"),
    "long, tuned − levers": ("long, tuned", "levers"),
    "500 public records − none": ("levers, public", "levers"),
    "levers − without privacy": ("levers", "without privacy"),
}


def _gains(rows: Sequence[Row]) -> str:
    lines = [
        "**What gains how many points**",
        "",
        f"| data | base | ε | {' | '.join(GAINS)} |",
        "|---" * (3 + len(GAINS)) + "|",
    ]
    for name, base in PAIRS:
        for epsilon in SHOWN[:-1]:
            cells = []
            for pair in GAINS.values():
                one, other = (_row(stated, base) for stated in pair)
                if epsilon not in epsilons(one):
                    cells.append("–")
                    continue
                beside = None if other in NOT_PRIVATE else epsilon
                apart = difference(
                    _test(rows, name, base, one, epsilon), _test(rows, name, base, other, beside)
                )
                cells.append(str(apart or NOT_RUN))
            lines.append(f"| {name} | {base} | {epsilon:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(stated: str, base: str) -> str:
    noise, _, what = stated.partition(", ")
    return by_default(noise, base) if what == "default" else stated


def said(run: Row) -> str:
    """The setting of a run, in words."""
    if run["method"] != "Head":
        return f"{run['method'].lower()} regression, C = {run['inverse_penalty']:g}"
    words = [f"C = {run['clip']:g}"]
    if run["of_rule"] is not None:
        words.append("rate by rule" + (f" × {run['of_rule']:g}" if run["of_rule"] != 1 else ""))
    else:
        words.append(f"rate {run['product'] / run['clip']:g}")
    words += [f"{run['rounds']} rounds at q = {run['sample_rate']:g}"]
    words += [f"centre {run['center']}"] if run["center"] else []
    words += [f"{run['public']} public records"] if run["public"] else []
    return ", ".join(words)


def _best(rows: Sequence[Row]) -> str:
    lines = [
        "**Best settings with shared noise, by validation**",
        "",
        "| data | ε | without public records | test | with 500 | test |",
        "|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for epsilon in SHOWN[:-1]:
            assert epsilon is not None
            cells = []
            for among in (PRIVATE, WITH_PUBLIC):
                runs = best(rows, name, epsilon, among)
                cells += [f"{runs[0]['base']}: {said(runs[0])}" if runs else NOT_RUN, _cell(runs)]
            lines.append(f"| {name} | {epsilon:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(found: Difference | None, least: float) -> str:
    """A difference, and whether it reaches a goal."""
    if found is None:
        return NOT_RUN
    short = least - found.points
    return f"{found}: " + ("met" if short <= 0 else f"missed by {short:.1f}")


def _goals(rows: Sequence[Row]) -> str:
    lines = [
        "**Goals at ε = 8**",
        "",
        "| data | best private − without privacy, same base "
        "| shared noise − central DP, both tuned "
        "| best private − TF-IDF | with 500 public records − TF-IDF |",
        "|---|---|---|---|---|",
    ]
    for name in SETS:
        runs = best(rows, name, 8.0, PRIVATE)
        base = runs[0]["base"] if runs else None
        usual = next(found for data, found in PAIRS if data == name)
        words = _test(rows, name, None, "TF-IDF", None)
        plain = difference(runs, _test(rows, name, base, "without privacy", None))
        close = -CLOSE if name in GOAL_SETS else float("-inf")
        central = difference(
            _test(rows, name, usual, "shared, tuned", 8.0),
            _test(rows, name, usual, "central, tuned", 8.0),
        )
        cells = [
            verdict(plain, close) if name in GOAL_SETS else f"{plain or NOT_RUN} (no goal)",
            verdict(central, -CENTRAL_CLOSE),
            verdict(difference(runs, words), 0.0),
            verdict(difference(best(rows, name, 8.0, WITH_PUBLIC), words), 0.0),
        ]
        read = base or usual
        lines.append(f"| {name} ({read}{_part(name, read)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _checked(rows: Sequence[Row]) -> str:
    lines = [
        "**The defaults against the best of a search**",
        "",
        "| data | base | ε | noise | rule, nothing subtracted | rule, built-in centre "
        "| best of the search | setting | default − best |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, base in PAIRS:
        for epsilon in CHECKED:
            for noise in ("own", "shared"):
                plain, centred, default = (
                    _test(rows, name, base, row, epsilon)
                    for row in (
                        f"{noise}, by rule",
                        f"{noise}, by rule, centred",
                        by_default(noise, base),
                    )
                )
                tuned = _searched(rows, name, base, noise, epsilon)
                shown = _cell(centred) if runs_on(f"{noise}, by rule, centred", base) else "–"
                setting = said(tuned[0]) if tuned else NOT_RUN
                lines.append(
                    f"| {name} | {base} | {epsilon:g} | {noise} | {_cell(plain)} | {shown} | "
                    f"{_cell(tuned)} | {setting} | {difference(default, tuned) or NOT_RUN} |"
                )
    return "\n".join(lines)


def _searched(
    rows: Sequence[Row], name: str, base: str, noise: str, epsilon: float
) -> Sequence[Row]:
    """The test runs of the best setting by validation, of the searches that were run: without a
    centre, and with one where the base's defaults have one."""
    among = [row for row in (f"{noise}, tuned", f"{noise}, tuned, centred") if runs_on(row, base)]
    found = [runs for row in among if (runs := _test(rows, name, base, row, epsilon))]
    return max(found, key=lambda runs: validation(rows, runs[0])) if found else []
