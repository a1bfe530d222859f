"""The log of a labelling: its source and settings, with which a later session continues it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.detected import Detected
from cloister.data.outputs import check_place, sha256_of
from cloister.data.step_log import last_step
from cloister.data.step_writing import DataStep, check_no_log, write_step
from cloister.errors import DataError, UsageError
from cloister.labelling.scheme import KINDS, LabelScheme
from cloister.owner_only import FILE

COMMAND = "label"


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Settings of a labelling, which stay the same in all its sessions.

    Attributes:
        scheme: The allowed answers.
        column: The column of answers.
        annotator: The annotator's name.
        sample: How many records are drawn; None: all are shown.
        seed: Seed of that draw.
        columns: Named columns by role; others have usual names.
    """

    scheme: LabelScheme
    column: str
    annotator: str
    sample: int | None
    seed: int
    columns: Mapping[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values."""
        return {
            **self.scheme.to_json(),
            "column": self.column,
            "annotator": self.annotator,
            "sample": self.sample,
            "seed": self.seed,
            "columns": {k: v for k, v in self.columns.items() if v is not None},
        }


def begin(out: Path, form: Detected) -> LabelSettings | None:
    """Returns the settings of an existing labelling; None: the labelling is new.

    Args:
        out: The annotator's file.
        form: The file to label.

    Raises:
        UsageError: `out` is another kind of file, or labels a file with another content.
    """
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; a file that ends in .jsonl is needed")
    if os.path.lexists(out) and out.exists() and out.samefile(form.path):
        raise UsageError(f"--out: {out} is the file to label; give a new file")
    found = settings_of(out)
    if found is None:
        if not _is_just_begun(out):
            check_place(out)
            check_no_log(out)
        return None
    settings, sha256 = found
    if sha256 != sha256_of(form.path):
        raise UsageError(
            f"--out: {out} labels another content than {form.path} has now; give the file that "
            "was labelled, or a new --out"
        )
    return settings


def make_file(out: Path) -> None:
    """Creates the empty file of a new labelling, which only its owner may read.

    Raises:
        OSError: The file exists by now, or cannot be created.
    """
    if not _is_just_begun(out):
        os.close(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))


def _is_just_begun(out: Path) -> bool:
    """Whether a kill left an empty file whose log was not written yet."""
    return out.is_file() and not out.is_symlink() and out.stat().st_size == 0


def settings_of(out: Path) -> tuple[LabelSettings, str] | None:
    """Returns the settings of a file's labelling and the hash of its source; None: no labelling."""
    step = last_step(out)
    if not out.is_file() or step.get("command") != COMMAND:
        return None
    settings, source = step.get("settings"), step.get("source")
    try:
        if (
            not isinstance(settings, dict)
            or not isinstance(source, dict)
            or settings["kind"] not in KINDS
        ):
            return None
        scheme = LabelScheme(
            kind=settings["kind"],
            labels=tuple(map(str, settings["labels"])),
            lowest=settings["lowest"],
            highest=settings["highest"],
        )
        settings = LabelSettings(
            scheme=scheme,
            column=str(settings["column"]),
            annotator=str(settings["annotator"]),
            sample=settings["sample"],
            seed=int(settings["seed"]),
            columns=dict(settings["columns"]),
        )
        return settings, str(source["sha256"])
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"{out}: its log ({out.name}.log.json) is damaged; give another --out"
        ) from error


def write_log(form: Detected, out: Path, settings: LabelSettings, answered: int, rows: int) -> None:
    """Writes the log of a labelling at its present state.

    As long as some records have no answer, labelling couples units: which records are in the file
    depends on how far the person came, and so on the other records.

    Args:
        form: The file to label.
        out: The annotator's file.
        settings: The labelling's settings.
        answered: Number of records with an answer.
        rows: Number of records in the source.
    """
    counts = {"answered": answered, "rows": rows}
    step = DataStep(COMMAND, settings.to_json(), counts, couples_units=answered < rows)
    write_step(form, out, out, step)
