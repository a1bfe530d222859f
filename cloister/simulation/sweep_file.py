"""`sweep.json`: the runs in a sweep's folder, and the fields in which they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import BadFileError
from cloister.files import write_whole

SWEEP_FILE = "sweep.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """The content of a sweep's file.

    Attributes:
        swept: The fields that are swept, as `section.key`.
        runs: The runs' folders, by name, in the order in which they run.
        folds: Number of folds of a cross-validation; None: it is not one.
    """

    swept: tuple[str, ...]
    runs: tuple[str, ...]
    folds: int | None = None


def write_sweep(
    folder: Path, swept: Sequence[str], runs: Sequence[str], folds: int | None = None
) -> None:
    """Writes a sweep's file, complete or not at all.

    Raises:
        OSError: It cannot be written.
    """
    document = {"format": FORMAT, "swept": list(swept), "runs": list(runs)}
    if folds is not None:
        document["folds"] = folds
    write_whole(folder / SWEEP_FILE, (json.dumps(document, indent=1) + "\n").encode())


def read_sweep(folder: Path) -> SweepFile:
    """Reads the file `sweep.json` of a sweep's folder.

    Raises:
        BadFileError: It is missing, damaged or of another version.
    """
    path = folder / SWEEP_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, but this version reads {FORMAT}")
        folds = None if found.get("folds") is None else int(found["folds"])
        swept, runs = tuple(map(str, found["swept"])), tuple(map(str, found["runs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{path}: cannot be read ({error}); remove it to compare the runs without it"
        ) from error
    return SweepFile(swept=swept, runs=runs, folds=folds)
