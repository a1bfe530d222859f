"""Prints the tables of docs/utility.md from results.jsonl: means of three seeds ± deviation.

python simulations/utility/table.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.jsonl"
Row = Mapping[str, Any]
Pick = Callable[[Row], bool]


def main() -> None:
    """Prints every table."""
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    for title, columns in TABLES.items():
        print(f"**{title}**\n")
        print(f"| data | ε | noise | {' | '.join(columns)} |")
        print("|---" * (3 + len(columns)) + "|")
        for data, epsilon, noise in _cases(rows):
            here = [
                row
                for row in rows
                if (row["data"], row["epsilon"], row["noise"]) == (data, epsilon, noise)
            ]
            cells = " | ".join(column(here) for column in columns.values())
            print(f"| {data} | {epsilon:g} | {noise} | {cells} |")
        print()


def _cases(rows: Sequence[Row]) -> list[tuple[str, float, str]]:
    return list(dict.fromkeys((row["data"], row["epsilon"], row["noise"]) for row in rows))


def mean(**wanted: object) -> Callable[[Sequence[Row]], str]:
    """A column: accuracy of the runs with these values."""
    return lambda rows: _cell(_scores(rows, wanted))


def gain(over: Mapping[str, object], of: Mapping[str, object]) -> Callable[[Sequence[Row]], str]:
    """A column: points by which one kind of run is ahead of another, seed by seed."""

    def cell(rows: Sequence[Row]) -> str:
        one, other = _scores(rows, of), _scores(rows, over)
        points = [100 * (a - b) for a, b in zip(one, other, strict=False)]
        if len(points) < 2:
            return "not run"
        return f"{statistics.mean(points):+.1f} ± {statistics.stdev(points):.1f}"

    return cell


def best(what: str, keys: Sequence[str], **wanted: object) -> Callable[[Sequence[Row]], str]:
    """A column: the highest mean of any setting, and the setting."""

    def cell(rows: Sequence[Row]) -> str:
        groups: dict[tuple[Any, ...], list[float]] = {}
        for row in rows:
            if row["what"] == what and all(row[key] == value for key, value in wanted.items()):
                groups.setdefault(tuple(row[key] for key in keys), []).append(row["accuracy"])
        if not groups:
            return "not run"
        peak = max(groups, key=lambda key: statistics.mean(groups[key]))
        named = ", ".join(f"{key} {value:g}" for key, value in zip(keys, peak, strict=True))
        return f"{_cell(groups[peak])} ({named})"

    return cell


def _scores(
    rows: Sequence[Row], wanted: Mapping[str, object], key: str = "accuracy"
) -> list[float]:
    found = [row for row in rows if all(row.get(k) == value for k, value in wanted.items())]
    return [row[key] for row in sorted(found, key=lambda row: int(row["seed"]))]


def _cell(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return "not run"
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def _alone(public: int) -> Callable[[Sequence[Row]], str]:
    wanted = _warm(public, "public")
    return lambda rows: _cell(_scores(rows, wanted, "alone"))


def _delivered(name: str, schedule: str, rate: float) -> dict[str, object]:
    return {"what": "delivered", "delivered": name, "schedule": schedule, "rate": rate}


def _warm(public: int, begins: str) -> dict[str, object]:
    return {"what": "warm", "public": public, "begins": begins}


CONSTANT = _delivered("last", "constant", 10.0)
LINEAR = _delivered("last", "linear", 10.0)
PROBE = {"what": "grid", "clip": 1.0, "rate": 3.0}
TABLES: dict[str, dict[str, Callable[[Sequence[Row]], str]]] = {
    "Clip bound and rate": {
        "best of 24": best("grid", ("clip", "rate", "momentum")),
        "C = 8, rate 1": mean(what="default", momentum=0.0),
        "C = 1, rate 3, momentum 0.5": mean(**PROBE, momentum=0.5),
        "C = 1, rate by noise": mean(what="by noise", deviation=1.5, momentum=0.5),
    },
    "Averaging, rate 10": {
        "falling rate": mean(**LINEAR),
        "and ema": gain(LINEAR, _delivered("ema 0.9", "linear", 10.0)),
        "constant rate": mean(**CONSTANT),
        "and ema 0.9": gain(CONSTANT, _delivered("ema 0.9", "constant", 10.0)),
        "and tail 0.5": gain(CONSTANT, _delivered("tail 0.5", "constant", 10.0)),
    },
    "Denoising": {
        "rate 3": gain(
            _delivered("last", "linear", 3.0), _delivered("last, denoised", "linear", 3.0)
        ),
        "rate 10": gain(LINEAR, _delivered("last, denoised", "linear", 10.0)),
        "rate 10, constant, ema": gain(
            _delivered("ema 0.9", "constant", 10.0),
            _delivered("ema 0.9, denoised", "constant", 10.0),
        ),
    },
    "Adam at the server": {
        "momentum, best of 12": best("grid", ("clip", "rate"), momentum=0.5),
        "fedadam, best of 4": best("adaptive", ("rate",), strategy="fedadam"),
        "fedadam-bc, best of 4": best("adaptive", ("rate",), strategy="fedadam-bc"),
    },
    "A start from public records": {
        "100 alone": _alone(100),
        "then private": gain(_warm(100, "zero"), _warm(100, "public")),
        "500 alone": _alone(500),
        "and then private": gain(_warm(500, "zero"), _warm(500, "public")),
        "private from zero": mean(**_warm(500, "zero")),
    },
}

if __name__ == "__main__":
    main()
