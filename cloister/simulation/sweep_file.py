"""`sweep.json`: which runs a sweep's folder holds, and in what they are meant to differ."""

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
    """A sweep.

    Attributes:
        swept: The fields that are swept, as `section.key`.
        runs: The runs' folders, by name, in the order in which they run.
        folds: Of a cross-validation, how many; None: it is none.
    """

    swept: tuple[str, ...]
    runs: tuple[str, ...]
    folds: int | None = None


def write_sweep(
    folder: Path, swept: Sequence[str], runs: Sequence[str], folds: int | None = None
) -> None:
    """Writes a sweep's file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    document = {"format": FORMAT, "swept": list(swept), "runs": list(runs)}
    if folds is not None:
        document["folds"] = folds
    write_whole(folder / SWEEP_FILE, (json.dumps(document, indent=1) + "\n").encode())


def read_sweep(folder: Path) -> SweepFile:
    """Reads a sweep's file.

    Raises:
        BadFileError: It is missing, damaged or of another version.
    """
    path = folder / SWEEP_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, and this version reads {FORMAT}")
        folds = None if found.get("folds") is None else int(found["folds"])
        swept, runs = tuple(map(str, found["swept"])), tuple(map(str, found["runs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(
            f"{path}: cannot be read ({error}); take it away to compare the runs without it"
        ) from error
    return SweepFile(swept=swept, runs=runs, folds=folds)
