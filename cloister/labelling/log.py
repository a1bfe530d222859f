"""The log of a labelling: what it was made from and what could be answered, so that it goes on."""

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
    """What a labelling was told, for all of its days.

    Attributes:
        scheme: What may be answered.
        column: The column of answers.
        annotator: Who answers.
        sample: How many records are drawn; absent: all are shown.
        seed: Of that draw.
        columns: Columns by role, where somebody named them.
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
    """What a labelling that is there was told; None: there is none yet.

    Args:
        out: The annotator's file.
        form: What is labelled.

    Raises:
        UsageError: Something else is there, or it was begun on another content.
    """
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; a file that ends in .jsonl is needed")
    if os.path.lexists(out) and out.exists() and out.samefile(form.path):
        raise UsageError(f"--out: {out} is what is labelled; give a new file")
    found = settings_of(out)
    if found is None:
        if not _is_just_begun(out):
            check_place(out)
            check_no_log(out)
        return None
    settings, sha256 = found
    if sha256 != sha256_of(form.path):
        raise UsageError(
            f"--out: {out} was begun on another content than {form.path} has now; label that one, "
            "or give a new file"
        )
    return settings


def make_file(out: Path) -> None:
    """Makes the file of a labelling that begins, empty and its owner's alone.

    Raises:
        OSError: Something else is there by now, or it cannot be made.
    """
    if not _is_just_begun(out):
        os.close(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))


def _is_just_begun(out: Path) -> bool:
    """Whether a labelling was ended by force between its empty file and that file's log."""
    return out.is_file() and not out.is_symlink() and out.stat().st_size == 0


def settings_of(out: Path) -> tuple[LabelSettings, str] | None:
    """What the labelling of a file was told, and the hash of what it labels; None: no labelling."""
    step = last_step(out)
    if not out.is_file() or step.get("command") != COMMAND:
        return None
    told, source = step.get("settings"), step.get("source")
    try:
        if not isinstance(told, dict) or not isinstance(source, dict) or told["kind"] not in KINDS:
            return None
        scheme = LabelScheme(
            kind=told["kind"],
            labels=tuple(map(str, told["labels"])),
            lowest=told["lowest"],
            highest=told["highest"],
        )
        settings = LabelSettings(
            scheme=scheme,
            column=str(told["column"]),
            annotator=str(told["annotator"]),
            sample=told["sample"],
            seed=int(told["seed"]),
            columns=dict(told["columns"]),
        )
        return settings, str(source["sha256"])
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"{out}: its log ({out.name}.log.json) is damaged; give another --out"
        ) from error


def write_log(form: Detected, out: Path, settings: LabelSettings, answered: int, rows: int) -> None:
    """Writes the log as things are now.

    Which records are in the file follows from how far a person came, and so from the other
    records, until all are: up to then labelling couples units.

    Args:
        form: What is labelled.
        out: The annotator's file.
        settings: What the labelling was told.
        answered: Records with an answer.
        rows: Records of the source.
    """
    counts = {"answered": answered, "rows": rows}
    step = DataStep(COMMAND, settings.to_json(), counts, couples_units=answered < rows)
    write_step(form, out, out, step)
