"""Several runs side by side: scores with their spread over seeds, ε, bytes and seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.canonical import json_number
from cloister.errors import UsageError
from cloister.ledger.stated import Stated
from cloister.server.run_directory import RunDirectory
from cloister.simulation.folds import told
from cloister.simulation.measured import Measured, Settings, measure
from cloister.simulation.sweep_file import SWEEP_FILE, read_sweep

# Fields that a note names; more would hide the ones that matter.
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one setting, which differ in their seeds alone.

    Attributes:
        settings: The fields in which groups differ, with this group's values.
        runs: Finished runs, in order of their seeds.
    """

    settings: Settings
    runs: tuple[Measured, ...]

    @property
    def label(self) -> str:
        """The settings in short; the run's name where there are none."""
        if not self.settings:
            return self.runs[0].name if len(self.runs) == 1 else "all runs"
        return ", ".join(f"{key} {_value(value)}" for key, value in self.settings.items())

    @property
    def mean(self) -> float:
        """Mean score over the runs."""
        return statistics.mean(run.score for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the scores; None of one run."""
        scores = [run.score for run in self.runs]
        return statistics.stdev(scores) if len(scores) > 1 else None

    @property
    def untrained(self) -> float | None:
        """Mean score before round 1; None where a run of the group has none."""
        scores = [run.untrained for run in self.runs if run.untrained is not None]
        return statistics.mean(scores) if len(scores) == len(self.runs) else None

    @property
    def bytes(self) -> float:
        """Mean bytes of a run."""
        return statistics.mean(run.bytes for run in self.runs)

    @property
    def seconds(self) -> float:
        """Mean seconds of a run."""
        return statistics.mean(run.seconds for run in self.runs)

    @property
    def promise(self) -> Stated | None:
        """The largest ε promised in a run of the group; None where it is not known of all."""
        promises = [run.promise for run in self.runs if run.promise is not None]
        if len(promises) < len(self.runs):
            return None
        return max(promises, key=lambda one: (one.epsilon, one.delta))

    def to_json(self) -> dict[str, Any]:
        """For `--json`; ∞ is null inside `promise`."""
        return {
            "settings": {key: _json(value) for key, value in self.settings.items()},
            "seeds": [run.seed for run in self.runs],
            "scores": [json_number(run.score) for run in self.runs],
            "mean": json_number(self.mean),
            "deviation": self.deviation,
            "untrained": None if self.untrained is None else json_number(self.untrained),
            "promise": self.promise.to_json() if self.promise is not None else None,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
            "runs": [str(run.path) for run in self.runs],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several runs come to.

    Attributes:
        metric: The score that all of them have.
        fields: In which fields they differ, the swept ones first.
        groups: By setting, in the order in which the runs were given.
        notes: What makes the comparison less than it seems.
    """

    metric: str
    fields: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "metric": self.metric,
            "fields": list(self.fields),
            "groups": [group.to_json() for group in self.groups],
            "notes": list(self.notes),
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Compares runs.

    Args:
        paths: Runs' folders, or folders of runs such as `simulate --sweep` makes.

    Raises:
        UsageError: There is no finished run, or they are scored by different metrics.
        BadFileError: A file of a run is damaged.
        LedgerError: A ledger is.
    """
    folders, swept = _expand(paths)
    folded = [note for path in paths for note in _fold_notes(path)]
    begun = [measure(folder) for folder in folders]
    runs = [run for run in begun if run.is_finished]
    if not runs:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no finished run; go on with the runs, then compare"
        )
    metrics = sorted({run.metric for run in runs})
    if len(metrics) > 1:
        raise UsageError(
            f"the runs are scored by {' and by '.join(metrics)}: compare runs of one kind of task"
        )
    fields = _differing(runs, swept)
    groups = _grouped(runs, fields)
    open_runs = [run for run in begun if not run.is_finished]
    notes = [
        *(f"{run.name} is left out: it has closed {run.rounds} rounds" for run in open_runs),
        *_field_notes(fields, swept),
        *_promise_notes(groups),
        *folded,
    ]
    return Comparison(metric=metrics[0], fields=fields, groups=groups, notes=tuple(notes))


def _expand(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...] | None]:
    """The runs' folders, and what a sweep says that it sweeps; None where none is a sweep's."""
    folders: list[Path] = []
    swept: tuple[str, ...] | None = None
    for path in paths:
        if (path / "recipe.toml").is_file():
            folders.append(path)
            continue
        inside = sorted(p.parent for p in path.glob("*/recipe.toml")) if path.is_dir() else []
        if not inside:
            raise UsageError(f"{path}: is no run's folder, and holds none; name a folder with runs")
        if (path / SWEEP_FILE).is_file():
            sweep = read_sweep(path)
            swept = tuple(dict.fromkeys([*(swept or ()), *sweep.swept]))
            planned = [path / name for name in sweep.runs if (path / name) in inside]
            inside = [*planned, *(p for p in inside if p not in planned)]
        folders += inside
    return list(dict.fromkeys(folders)), swept


def _fold_notes(path: Path) -> list[str]:
    """What a cross-validation's folds come to together: a row's ε is of one of them."""
    if not (path / SWEEP_FILE).is_file():
        return []
    sweep = read_sweep(path)
    recipes = [path / name for name in sweep.runs if (path / name / "recipe.toml").is_file()]
    if sweep.folds is None or not recipes:
        return []
    return [told(RunDirectory.reopen(recipes[0]).recipe(), sweep.folds)]


def _differing(runs: Sequence[Measured], swept: tuple[str, ...] | None) -> tuple[str, ...]:
    """The fields in which runs differ, the swept ones first."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    other = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    first = [key for key in swept or () if key in other]
    return tuple(dict.fromkeys([*first, *other]))


def _grouped(runs: Sequence[Measured], fields: Sequence[str]) -> tuple[Group, ...]:
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(repr([run.settings.get(key) for key in fields]), []).append(run)
    return tuple(
        Group(
            settings={key: same[0].settings.get(key) for key in fields},
            runs=tuple(sorted(same, key=lambda run: run.seed)),
        )
        for same in found.values()
    )


def _field_notes(fields: Sequence[str], swept: tuple[str, ...] | None) -> list[str]:
    """That runs differ in more than what is compared."""
    more = [key for key in fields if key not in swept] if swept is not None else list(fields)
    named = ", ".join(more[:NAMED]) + (f" and {len(more) - NAMED} more" * (len(more) > NAMED))
    if swept is not None and more:
        return [f"the runs differ in more than the sweep: {named}"]
    if swept is None and len(more) > 1:
        return [f"the runs differ in several fields, so no one of them explains a score: {named}"]
    return []


def _promise_notes(groups: Sequence[Group]) -> list[str]:
    """That the groups' ε are not of one kind."""
    promises = [group.promise for group in groups if group.promise is not None]
    private = [one for one in promises if math.isfinite(one.epsilon)]
    of = {(one.unit, one.neighbouring, one.delta, one.adversaries, one.basis) for one in private}
    if len(of) > 1:
        return ["the runs' ε differ in unit, δ, adversary or basis: they are not one scale"]
    return []


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def numbers(groups: Sequence[Group], field: str) -> Mapping[int, float] | None:
    """A field's value in each group by the group's place, where all are numbers; else None."""
    values = [group.settings.get(field) for group in groups]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return {place: float(value) for place, value in enumerate(values)}  # type: ignore[arg-type]
