"""`tune.json`: what a search looks for, and the scores of its trials so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloister.canonical import json_number
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, write_whole
from cloister.json_text import read_json
from cloister.simulation.tuning.search_space import Searched

TUNING_FILE = "tune.json"
FORMAT = 1
# Largest file that is read: 500 trials of 100 seeds each and 20 fields take a tenth of it.
MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class TriedSetting:
    """One setting that was tried.

    Attributes:
        number: From 1.
        setting: Values by field, in the form of `--set`.
        scores: The score of each seed on the public validation file; empty: it could not be run.
        tests: The score of each seed on the public test file; null if it is not a number.
        why: Why it could not be run; empty if it was.
    """

    number: int
    setting: Mapping[str, str]
    scores: tuple[float, ...] = ()
    tests: tuple[float | None, ...] = ()
    why: str = ""

    @property
    def score(self) -> float | None:
        """Returns the mean score over the seeds; None: it could not be run."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    @property
    def test(self) -> float | None:
        """Returns the mean score on the test file; None: a seed has none."""
        found = [score for score in self.tests if score is not None]
        return sum(found) / len(found) if found and len(found) == len(self.tests) else None

    def to_json(self) -> dict[str, Any]:
        """Returns the trial as JSON values."""
        return {
            "number": self.number,
            "setting": dict(self.setting),
            "scores": list(self.scores),
            "tests": [None if score is None else json_number(score) for score in self.tests],
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True)
class TuningFile:
    """The content of a search's file.

    Attributes:
        declared: What the search is: a folder is continued only by the same search.
        trials: The trials so far.
    """

    declared: Mapping[str, Any]
    trials: tuple[TriedSetting, ...] = ()

    def with_trial(self, trial: TriedSetting) -> TuningFile:
        """Returns the file with one more trial."""
        return replace(self, trials=(*self.trials, trial))


def write_tuning(folder: Path, content: TuningFile) -> None:
    """Writes a search's file, complete or not at all.

    Raises:
        BadFileError: It cannot be written.
    """
    document = {
        "format": FORMAT,
        "declared": dict(content.declared),
        "trials": [trial.to_json() for trial in content.trials],
    }
    try:
        write_whole(folder / TUNING_FILE, (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def read_tuning(folder: Path) -> TuningFile:
    """Reads the file `tune.json` of a search's folder.

    Raises:
        BadFileError: It is damaged or of another version.
    """
    path = folder / TUNING_FILE
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        found = read_json(path.read_bytes(), most_bytes=MOST_BYTES)
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, but this version reads {FORMAT}")
        trials = tuple(_trial(place, row) for place, row in enumerate(found["trials"], 1))
        return TuningFile(declared=dict(found["declared"]), trials=trials)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFileError(
            f"{path}: cannot be read ({error}); restore it, or give another --out"
        ) from error


def _trial(place: int, row: Mapping[str, Any]) -> TriedSetting:
    if row["number"] != place:
        raise ValueError(f"trial {row['number']!r} at place {place}")
    return TriedSetting(
        number=place,
        setting={str(field): str(value) for field, value in row["setting"].items()},
        scores=tuple(map(_number, row["scores"])),
        tests=tuple(None if score is None else _number(score) for score in row["tests"]),
        why=str(row["why"]),
    )


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"score {value!r}: a number is needed")
    return float(value)  # type: ignore[arg-type]


def check_same(
    folder: Path,
    before: TuningFile,
    declared: Mapping[str, Any],
    searched: Sequence[Searched],
) -> None:
    """Refuses to continue a folder with another search; the number of trials may differ.

    Raises:
        UsageError: The folder has another search.
        BadFileError: A trial's values are not among those that the search tries.
    """
    differing = [key for key in declared if before.declared.get(key) != declared[key]]
    if differing or before.declared.keys() != declared.keys():
        raise UsageError(
            f"{folder}: holds another search, which differs in its "
            f"{', '.join(differing) or 'form'}; give another --out, or the command of that search"
        )
    fields = {one.field for one in searched}
    for trial in before.trials:
        if trial.setting.keys() != fields or not all(
            one.includes(trial.setting[one.field]) for one in searched
        ):
            raise BadFileError(
                f"{folder / TUNING_FILE}: trial {trial.number} is not of this search; restore the "
                "file, or give another --out"
            )
