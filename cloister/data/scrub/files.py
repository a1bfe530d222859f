"""Scrubs a file of records into a new file, with a report and a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.data.detected import Detected, detect_form
from cloister.data.scrub.find import Finder, chosen_types, find
from cloister.data.scrub.marked import Score, read_marked, score
from cloister.data.scrub.replace import Placeholders, Scrubber
from cloister.data.scrub.spans import TYPES, Span
from cloister.data.step_writing import DataStep, new_logged_file, write_step
from cloister.data.values import Number, Value, shown
from cloister.errors import DataError, UsageError
from cloister.files import identity_of

# Columns that are scrubbed if none is named: all columns of text from which a task learns.
TEXT_COLUMNS = ("text", "text_b", "tokens", "messages", "prompt", "chosen", "rejected")
# Rows between two progress messages.
TOLD_EVERY = 500

Progress = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class ScrubReport:
    """Counts of what was replaced: true counts of private records, for their owner only.

    Attributes:
        rows: Rows that were read and written.
        touched: Rows that were changed.
        found: Identifiers that were replaced, by type.
        scrubbed: Columns that were searched.
        copied: Columns that were copied without a search.
        marked: Recall and precision by type on marked texts; absent: none were given.
    """

    rows: int
    touched: int
    found: Mapping[str, int]
    scrubbed: Sequence[str]
    copied: Sequence[str]
    marked: Mapping[str, Score] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "rows": self.rows,
            "rows_touched": self.touched,
            "found": dict(self.found),
            "columns_scrubbed": list(self.scrubbed),
            "columns_copied": list(self.copied),
            "marked": {kind: one.to_json() for kind, one in self.marked.items()},
        }


def scrub_file(
    source: Path | Detected,
    out: Path,
    *,
    columns: Sequence[str] = (),
    unit: str | None = None,
    types: Sequence[str] = (),
    marked: Path | None = None,
    names: Finder | None = None,
    progress: Progress | None = None,
) -> ScrubReport:
    """Writes a file's rows with placeholders in place of personal identifiers.

    Args:
        source: The file, or its detected form (`detect_form`); it is not changed.
        out: A new file, its format by its ending; its log is written beside it.
        columns: The columns that are searched; empty: those of `TEXT_COLUMNS` that the file has.
            All others are copied unchanged.
        unit: Column of persons: an identifier gets the same placeholder in all rows with the same
            value there. Absent, or a row without a value: in that row only.
        types: The types that are searched for, of `TYPES`; empty: all.
        marked: Texts with spans marked by hand, to count recall and precision.
        names: Finds persons' names (`scrub.person_names.name_finder`); absent: no names are
            searched for.
        progress: Is called now and then with the number of rows so far.

    Raises:
        UsageError: `out` exists or has another ending, or a column or type is unknown.
        DataError: The file is damaged or changed while it was read, or a row cannot be written;
            nothing is written then.
    """
    chosen = chosen_types(types)

    def found_in(text: str) -> list[Span]:
        return find(text, chosen, names)

    with new_logged_file(out) as (writer, content):
        scores = score(read_marked(marked), found_in) if marked is not None else {}
        form = source if isinstance(source, Detected) else detect_form(source)
        before = identity_of(form.path)
        every = form.names()
        looked_at = _looked_at(every, columns, unit, form.path)
        scrubber = Scrubber(found_in)
        units: dict[str, Placeholders] = {}
        seen = dict.fromkeys(every)
        rows = touched = 0
        for number, row in form.rows():
            placeholders = _of_unit(units, row.get(unit) if unit is not None else None)
            new = {
                name: scrubber.value(value, placeholders) if name in looked_at else value
                for name, value in row.items()
            }
            seen.update(dict.fromkeys(row))
            rows += 1
            touched += any(new[name] != row[name] for name in looked_at if name in row)
            writer.add(new, f"{form.path.name}, row {number}")
            if progress is not None and rows % TOLD_EVERY == 0:
                progress(rows)
        writer.end()
        if identity_of(form.path) != before:
            raise DataError(f"{form.path}: changed while it was read; run the command again")
        report = ScrubReport(
            rows=rows,
            touched=touched,
            found={t: scrubber.found[t] for t in TYPES if scrubber.found[t]},
            scrubbed=[name for name in seen if name in looked_at],
            copied=[name for name in seen if name not in looked_at],
            marked=scores,
        )
        settings = {"unit": unit, "types": chosen, "names": names is not None}
        write_step(form, out, content, DataStep("scrub", settings, report.to_json()))
    return report


def _of_unit(units: dict[str, Placeholders], value: Value) -> Placeholders:
    name = value.written if isinstance(value, Number) else value
    if not isinstance(name, str) or not name.strip():
        return Placeholders()
    return units.setdefault(name, Placeholders())


def _looked_at(
    every: Sequence[str], columns: Sequence[str], unit: str | None, source: Path
) -> tuple[str, ...]:
    held = ", ".join(shown(name) for name in every[:12])
    if unit is not None and unit not in every:
        raise UsageError(f"--unit: {source} has no column {shown(unit)!r} (found: {held})")
    for name in columns:
        if name not in every:
            raise UsageError(f"--column: {source} has no column {shown(name)!r} (found: {held})")
    if unit in columns:
        raise UsageError(f"--column: {shown(unit or '')!r} is --unit too; name another column")
    # Later rows of JSON lines may have columns that the first row lacks: keep all columns of texts.
    chosen = tuple(columns) or tuple(name for name in TEXT_COLUMNS if name != unit)
    if not set(chosen) & set(every):
        raise UsageError(
            f"--column: none given, and {source} has none of {', '.join(TEXT_COLUMNS)} (found: "
            f"{held}); name the columns of texts"
        )
    return chosen
