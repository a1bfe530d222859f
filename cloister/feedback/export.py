"""Exports accepted feedback as training rows in the task's columns, each in its privacy unit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.config import DataConfig
from cloister.data.detected import Detected
from cloister.data.outputs import check_new
from cloister.data.records import RecordKind
from cloister.data.roles import written
from cloister.data.step_log import steps_beside
from cloister.data.step_writing import DataStep, new_logged_file, write_first_step, write_step
from cloister.data.unit_column import UNIT
from cloister.data.values import Value
from cloister.errors import DataError, UsageError
from cloister.feedback.corrections import row_of
from cloister.feedback.entries import Feedback, ReviewState
from cloister.files import identity_of

COMMAND = "feedback"
PERSON = "person"


@dataclass(frozen=True)
class FeedbackReport:
    """Exact counts of an export. They are private: only the owner of the file may see them.

    Attributes:
        written: Number of corrections in the new file.
        before: Number of the site's earlier records, which follow the corrections.
        most_rows: Largest number of rows of any unit that has a correction.
        unknown: Number of record ids that corrections name and the earlier records lack. If such
            a record is there without an id or under another one, it counts as two units, and the
            promised ε does not cover both together.
        left_out: Number of accepted corrections that were not written, by reason.
    """

    written: int
    before: int
    most_rows: int
    unknown: int
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON values, for the log beside the new file."""
        return {
            "written": self.written,
            "rows_before": self.before,
            "most_rows_of_a_unit": self.most_rows,
            "unknown_records": self.unknown,
            "left_out": dict(self.left_out),
        }


def export_feedback(
    found: Sequence[Feedback],
    out: Path,
    columns: DataConfig,
    *,
    persons: bool = False,
    records: Detected | None = None,
) -> FeedbackReport:
    """Writes accepted feedback as training rows into a new file.

    Args:
        found: Rows of a store; those that are not accepted are skipped.
        out: The new file, `.jsonl`; only its owner may read it.
        columns: Names of the columns in the site's records.
        persons: Whether the privacy unit is a person; then each row needs the person's id.
        records: The site's records so far, which follow the corrections in the new file; None:
            the file holds corrections only.

    Returns:
        The counts, which are also in the log beside `out`.

    Raises:
        UsageError: `out` exists or does not end in `.jsonl`, no row can be written, or the
            feedback belongs to several tasks.
        DataError: The records are damaged, or contain corrections already.

    Guarantees:
        No two units are coupled: each row is computed from one piece of feedback and belongs only
        to the unit of the record or person that it names. Corrections come before the records:
        when a unit has more rows than are used in training, the first ones are used
        (`cloister.training.units.encode_units`), so the corrections are. Feedback on an answer
        that used private state without noise is never written.
    """
    check_new(out)
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; a file that ends in .jsonl is needed")
    if records is not None and _has_feedback(records.path):
        raise DataError(
            f"{records.path}: contains corrections already; give the file as it was before any "
            "export, because every export writes all accepted corrections again"
        )
    rows, left_out = _rows(found, columns, persons=persons)
    if not rows:
        reasons = "; ".join(f"{count}: {why}" for why, count in left_out.items())
        raise UsageError(
            "no accepted feedback to write"
            + (f" ({reasons})" if reasons else "")
            + "; cloister site feedback review accepts what is right"
        )
    unit_column = (columns.person or PERSON) if persons else UNIT
    units = Counter(written(row.get(unit_column)) for row in rows)
    named = {one.content.unit for one in found if one.status is ReviewState.ACCEPTED}
    unknown = set() if records is None or persons else {*units} & named
    before = 0
    with new_logged_file(out) as (writer, content):
        for number, row in enumerate(rows, 1):
            writer.add(row, f"correction {number}")
        if records is not None:
            stamp = identity_of(records.path)
            for before, old in records.rows():
                writer.add(old, f"{records.path.name}, row {before}")
                own = written(old.get(unit_column))
                if own in units:
                    units[own] += 1
                    unknown.discard(own)
            if identity_of(records.path) != stamp:
                raise DataError(f"{records.path}: changed during the export; run the command again")
        writer.end()
        most_rows = max(units.values())
        report = FeedbackReport(len(rows), before, most_rows, len(unknown), left_out)
        step = DataStep(COMMAND, {"persons": persons}, report.to_json())
        if records is None:
            write_first_step({"name": "feedback"}, out, content, step)
        else:
            write_step(records, out, content, step)
    return report


def _rows(
    found: Sequence[Feedback], columns: DataConfig, *, persons: bool
) -> tuple[list[dict[str, Value]], dict[str, int]]:
    rows: list[dict[str, Value]] = []
    left_out: Counter[str] = Counter()
    kinds: set[RecordKind] = set()
    for one in found:
        content = one.content
        if one.status is not ReviewState.ACCEPTED:
            continue
        if content.drew_on:
            left_out["its answer used private state without noise"] += 1
            continue
        if persons and content.person is None:
            left_out["it names no person, and the privacy unit is a person"] += 1
            continue
        kinds.add(content.kind)
        row: dict[str, Value] = row_of(content.kind, content.asked, content.correction, columns)
        # A person's id may equal a record's id. The prefix keeps the two units apart.
        own = content.unit or (None if persons else f"person:{content.person}")
        if content.person is not None:
            row[columns.person or PERSON] = content.person
        if own is not None:
            row[UNIT] = own
        rows.append(row)
    if len(kinds) > 1:
        raise UsageError(
            f"the store has feedback on several tasks ({', '.join(sorted(kinds))}); use one store "
            "for each task"
        )
    return rows, dict(left_out)


def _has_feedback(path: Path) -> bool:
    return os.path.lexists(path) and any(
        isinstance(step, Mapping) and step.get("command") == COMMAND
        for steps in steps_beside(path)
        if isinstance(steps, list)
        for step in steps
    )
