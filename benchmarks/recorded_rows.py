"""The measurements that are kept in `benchmarks/recorded/`, read with their sources.

rows.json     figures of README.md that a model or a plot uses, each with its command
curves.json   what `python -m benchmarks.curves` last wrote
sites.json    what `python -m benchmarks.connected_sites` wrote, one object for each number of sites
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Recorded:
    """All kept measurements.

    Attributes:
        rows: Figures of README.md by their name.
        curves: Points by curve: x, and CPU seconds by unit.
        ledger_bytes: Bytes of a ledger by its rounds.
        sites: Runs of a coordinator with connected sites, by ascending number.
        curves_machine: What the curves were measured on.
    """

    rows: Mapping[str, Sequence[tuple[float, float]]]
    curves: Mapping[str, Sequence[tuple[float, float]]]
    ledger_bytes: Sequence[tuple[float, float]]
    sites: Sequence[Mapping[str, Any]]
    curves_machine: Mapping[str, Any]

    def sites_of(self, part: str, process: str) -> Sequence[tuple[float, float]]:
        """A process's CPU milliseconds of all sites together, by the number of sites.

        Args:
            part: `cpu_ms_per_site_and_round` or `idle_cpu_ms_per_site_and_second`.
            process: `superlink`, `gate` or `executor`.
        """
        return [
            (float(run["sites"]), float(run["sites"]) * float(run[part][process]))
            for run in self.sites
            if process in run.get(part, {})
        ]


def recorded(folder: Path = FOLDER) -> Recorded:
    """Reads the kept measurements."""
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    sites = json.loads((folder / "sites.json").read_text(encoding="utf-8"))
    by_curve: dict[str, list[tuple[float, float]]] = {}
    for point in curves["points"]:
        cost = point["cpu"] / point["units"]
        by_curve.setdefault(point["curve"], []).append((float(point["x"]), cost))
    return Recorded(
        rows={name: [(float(x), float(y)) for x, y in row["points"]] for name, row in rows.items()},
        curves=by_curve,
        ledger_bytes=[(float(n), float(size)) for n, size in curves["ledger_bytes"].items()],
        sites=sorted(sites, key=lambda run: int(run["sites"])),
        curves_machine=curves["machine"],
    )


def sources(folder: Path = FOLDER) -> Iterator[tuple[str, str]]:
    """Yields the name of each row with the command that measured it."""
    for name, row in json.loads((folder / "rows.json").read_text(encoding="utf-8")).items():
        yield name, str(row["command"])
