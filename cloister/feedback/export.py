"""Accepted feedback as a data file of the task's own columns, each row in its unit."""

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
    """True counts of an export, for the file's owner.

    Attributes:
        written: Corrections that were written.
        before: Rows of the file that they were put before.
        most_rows: Most rows of a unit that has a correction.
        unknown: Records that corrections name and that the file before does not have. One that it
            has under no id, or another, would be two units.
        left_out: Accepted feedback that was not written, by reason.
    """

    written: int
    before: int
    most_rows: int
    unknown: int
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
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
    """Writes accepted feedback as rows of training records.

    Args:
        found: Feedback of a store; what is not accepted is left out.
        out: The new file, `.jsonl`; its owner alone may read it.
        columns: The columns' names, as the site's records have them.
        persons: Whether the privacy unit is a person: then a row needs the person's id.
        records: The site's records so far, which follow the corrections in the new file; None:
            corrections alone.

    Returns:
        The counts, which the log beside `out` has too.

    Raises:
        UsageError: `out` exists or is no `.jsonl`, nothing can be written, or feedback is of
            several tasks.
        DataError: The records are damaged, or have corrections already.

    Guarantees:
        No units are coupled: each row follows from one piece of feedback and is in the unit of the
        record or person that it names, and in no other. Corrections stand before the records, so
        of a unit with more rows than count, the corrections do
        (`cloister.training.units.encode_units`). Feedback that drew on private state without noise
        is never written.
    """
    check_new(out)
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; a file that ends in .jsonl is needed")
    if records is not None and _has_feedback(records.path):
        raise DataError(
            f"{records.path}: has corrections already; give the file from before, as all accepted "
            "ones are written again"
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
                raise DataError(f"{records.path}: changed while it was read; run this again")
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
            left_out["its answer drew on private state without noise"] += 1
            continue
        if persons and content.person is None:
            left_out["it names no person, where persons are the units"] += 1
            continue
        kinds.add(content.kind)
        row: dict[str, Value] = row_of(content.kind, content.asked, content.correction, columns)
        # A person's id is no record's: told apart where both stand in one column.
        own = content.unit or (None if persons else f"person:{content.person}")
        if content.person is not None:
            row[columns.person or PERSON] = content.person
        if own is not None:
            row[UNIT] = own
        rows.append(row)
    if len(kinds) > 1:
        raise UsageError(
            f"the store has feedback of several tasks ({', '.join(sorted(kinds))}); keep one store "
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
