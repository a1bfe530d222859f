"""Compares several runs: scores with their deviation over seeds, ε, bytes and seconds."""

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
from cloister.simulation.folds import folds_note
from cloister.simulation.measured import Measured, Settings, measure
from cloister.simulation.sweep_file import SWEEP_FILE, read_sweep

# Most fields that a note names; more would hide the important ones.
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one setting, which differ only in their seeds.

    Attributes:
        settings: The fields in which groups differ, with this group's values.
        runs: Finished runs, in order of their seeds.
    """

    settings: Settings
    runs: tuple[Measured, ...]

    @property
    def label(self) -> str:
        """Returns the settings in short; the run's name if there are none."""
        if not self.settings:
            return self.runs[0].name if len(self.runs) == 1 else "all runs"
        return ", ".join(f"{key} {_value(value)}" for key, value in self.settings.items())

    @property
    def mean(self) -> float:
        """Returns the mean score over the runs."""
        return statistics.mean(run.score for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Returns the sample standard deviation of the scores; None for one run."""
        scores = [run.score for run in self.runs]
        return statistics.stdev(scores) if len(scores) > 1 else None

    @property
    def untrained(self) -> float | None:
        """Returns the mean score before round 1; None if a run of the group has none."""
        scores = [run.untrained for run in self.runs if run.untrained is not None]
        return statistics.mean(scores) if len(scores) == len(self.runs) else None

    @property
    def old_test(self) -> tuple[float, float] | None:
        """Returns the mean scores on an older test set, before round 1 and at the end; None if a
        run of the group has none."""
        found = [run.old_test for run in self.runs if run.old_test is not None]
        if len(found) < len(self.runs):
            return None
        before, after = zip(*found, strict=True)
        return statistics.mean(before), statistics.mean(after)

    @property
    def bytes(self) -> float:
        """Returns the mean number of bytes of a run."""
        return statistics.mean(run.bytes for run in self.runs)

    @property
    def seconds(self) -> float:
        """Returns the mean duration of a run in seconds."""
        return statistics.mean(run.seconds for run in self.runs)

    @property
    def promise(self) -> Stated | None:
        """Returns the largest ε promised in a run of the group; None if a run's is not known."""
        promises = [run.promise for run in self.runs if run.promise is not None]
        if len(promises) < len(self.runs):
            return None
        return max(promises, key=lambda one: (one.epsilon, one.delta))

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values for `--json`; ∞ is null inside of `promise`."""
        return {
            "settings": {key: _json(value) for key, value in self.settings.items()},
            "seeds": [run.seed for run in self.runs],
            "scores": [json_number(run.score) for run in self.runs],
            "mean": json_number(self.mean),
            "deviation": self.deviation,
            "untrained": None if self.untrained is None else json_number(self.untrained),
            "old_test": None if self.old_test is None else list(map(json_number, self.old_test)),
            "promise": self.promise.to_json() if self.promise is not None else None,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
            "runs": [str(run.path) for run in self.runs],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of several runs.

    Attributes:
        metric: The score that all of them have.
        fields: The fields in which they differ, the swept ones first.
        groups: By setting, in the order in which the runs were given.
        notes: Limits of the comparison, one line each.
    """

    metric: str
    fields: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values for `--json`."""
        return {
            "metric": self.metric,
            "fields": list(self.fields),
            "groups": [group.to_json() for group in self.groups],
            "notes": list(self.notes),
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Compares finished runs, grouped by the settings in which they differ.

    Args:
        paths: Folders of runs, or folders with several runs, as `simulate --sweep` makes them.

    Raises:
        UsageError: No run is finished, or they are scored by different metrics.
        BadFileError: A file of a run is damaged.
        LedgerError: A ledger of a run is damaged.
    """
    folders, swept = _expand(paths)
    folded = [note for path in paths for note in _fold_notes(path)]
    begun = [measure(folder) for folder in folders]
    runs = [run for run in begun if run.is_finished]
    if not runs:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no finished run; finish the runs, then compare"
        )
    metrics = sorted({run.metric for run in runs})
    if len(metrics) > 1:
        raise UsageError(
            f"the runs are scored by {' and by '.join(metrics)}; compare runs of one kind of task"
        )
    fields = _differing(runs, swept)
    groups = _grouped(runs, fields)
    open_runs = [run for run in begun if not run.is_finished]
    notes = [
        *(f"{run.name} is left out: not finished, {run.rounds} rounds closed" for run in open_runs),
        *_field_notes(fields, swept),
        *_promise_notes(groups),
        *folded,
    ]
    return Comparison(metric=metrics[0], fields=fields, groups=groups, notes=tuple(notes))


def _expand(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...] | None]:
    """Returns the runs' folders, and the fields that a sweep varies; None: there is no sweep."""
    folders: list[Path] = []
    swept: tuple[str, ...] | None = None
    for path in paths:
        if (path / "recipe.toml").is_file():
            folders.append(path)
            continue
        inside = sorted(p.parent for p in path.glob("*/recipe.toml")) if path.is_dir() else []
        if not inside:
            raise UsageError(f"{path}: neither a run nor a folder of runs; give one")
        if (path / SWEEP_FILE).is_file():
            sweep = read_sweep(path)
            swept = tuple(dict.fromkeys([*(swept or ()), *sweep.swept]))
            planned = [path / name for name in sweep.runs if (path / name) in inside]
            inside = [*planned, *(p for p in inside if p not in planned)]
        folders += inside
    return list(dict.fromkeys(folders)), swept


def _fold_notes(path: Path) -> list[str]:
    """Returns a note on the ε of all folds together, because a row's ε is that of one fold."""
    if not (path / SWEEP_FILE).is_file():
        return []
    sweep = read_sweep(path)
    recipes = [path / name for name in sweep.runs if (path / name / "recipe.toml").is_file()]
    if sweep.folds is None or not recipes:
        return []
    return [folds_note(RunDirectory.reopen(recipes[0]).recipe(), sweep.folds)]


def _differing(runs: Sequence[Measured], swept: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the fields in which runs differ, the swept ones first."""
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
    """Returns a note if runs differ in more fields than those that are compared."""
    more = [key for key in fields if key not in swept] if swept is not None else list(fields)
    named = ", ".join(more[:NAMED]) + (f" and {len(more) - NAMED} more" * (len(more) > NAMED))
    if swept is not None and more:
        return [f"the runs differ in more than the sweep: {named}"]
    if swept is None and len(more) > 1:
        return [f"the runs differ in several fields, so none alone explains a score: {named}"]
    return []


def _promise_notes(groups: Sequence[Group]) -> list[str]:
    """Returns a note if the groups' ε cannot be compared."""
    promises = [group.promise for group in groups if group.promise is not None]
    private = [one for one in promises if math.isfinite(one.epsilon)]
    of = {(one.unit, one.neighbouring, one.delta, one.adversaries, one.basis) for one in private}
    if len(of) > 1:
        return ["the runs' ε differ in unit, δ, adversary or basis, so they cannot be compared"]
    return []


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def numbers(groups: Sequence[Group], field: str) -> Mapping[int, float] | None:
    """Returns a field's value in each group, by the group's place; None: not all are numbers."""
    values = [group.settings.get(field) for group in groups]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return {place: float(value) for place, value in enumerate(values)}  # type: ignore[arg-type]
