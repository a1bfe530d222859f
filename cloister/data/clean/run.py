"""Cleans a file row by row into a new, complete file with a log; the source is not changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloister.data.check.near import Fingerprints
from cloister.data.clean.log import CleaningLog, RuleChanges, count, log_path, put
from cloister.data.clean.output import new_rows, output_form
from cloister.data.clean.rows import DROPS, RowCleaner, RowOptions
from cloister.data.clean.rules import RULES
from cloister.data.detected import Detected, detect_form
from cloister.data.outputs import check_place
from cloister.data.records import ONE_LABEL
from cloister.data.roles import find_roles, refuse_items, written
from cloister.data.step_log import steps_of
from cloister.data.unit_column import UNIT
from cloister.data.values import Row, shown
from cloister.errors import DataError, UsageError
from cloister.files import Stamp, stamp_of, write_whole
from cloister.names import counted
from cloister.owner_only import FILE

Duplicates = Literal["keep", "exact", "near"]
# Rows between two progress calls.
STEP = 1000
_OTHER_CHANGES = {
    "label": "labels: the rules on texts, and white space made one blank",
    "tags": "tags of other schemes made BIO",
}
_COUPLING = {
    "exact": "rows left out whose text an earlier row has",
    "near": "rows left out whose text is equal or near to an earlier row's",
}


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """The options of `clean_file`.

    Attributes:
        columns: Columns by role (`text`, `label`, `person`, …) that the caller names.
        encoding: The file's encoding; None: detected.
        separator: The separator of cells; None: detected.
        quotes: Whether `"` encloses cells.
        rows: The rules on each row.
        keep: Further columns that are kept.
        duplicates: Which copies of earlier texts are left out. This couples units: whether a
            record stays then depends on other persons' records.
        on_rows: Is called now and then with the number of rows read.
        label_separator: Separates several labels in a cell of text; None: a list is needed.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    encoding: str | None = None
    separator: str | None = None
    quotes: bool = True
    rows: RowOptions = field(default_factory=RowOptions)
    keep: tuple[str, ...] = ()
    duplicates: Duplicates = "keep"
    on_rows: Callable[[int], None] = lambda _: None
    label_separator: str | None = None


def clean_file(path: Path, out: Path, options: CleanOptions | None = None) -> CleaningLog:
    """Writes a clean copy of a file with standard column names, and a log beside it.

    Args:
        path: A data file of any format.
        out: The new file: `.jsonl`, `.csv` or `.tsv`, also with `.gz`; UTF-8.
        options: The options; absent: every rule on single rows, and no other.

    Returns:
        The log, as it was written to `log_path(out)`.

    Raises:
        UsageError: A column does not exist, `out` exists already or cannot hold the records.
        DataError: The file is missing, damaged or empty, changed while it was read, has a
            duplicate identifier, or no row is left.
        OSError: `out` cannot be written.

    Guarantees:
        Unless `duplicates` says otherwise, each row of the output is a function of one row of the
        file. Cleaning a clean file again in the same way gives the same bytes.
    """
    options = options or CleanOptions()
    check_place(out)
    output_form(out)
    log_to = log_path(out)
    check_place(log_to)
    detected = detect_form(path, options.encoding, options.separator, quotes=options.quotes)
    roles = find_roles(detected.rows(), options.columns, options.keep, options.label_separator)
    refuse_items(roles, "clean")
    if roles.kind not in (*ONE_LABEL, "score") and output_form(out).kind == "csv":
        raise UsageError(
            f"--out {out}: {roles.kind} are lists, which a CSV cannot hold; end it in .jsonl"
        )
    stamp = stamp_of(path)
    cleaner = RowCleaner(roles, options.rows, options.keep)
    _check_names(cleaner.columns())
    run = _Run(detected, cleaner, options)
    copies = run.copies() if options.duplicates != "keep" else frozenset()
    is_logged = False
    try:
        with new_rows(out, run.columns()) as (file, content):
            for row in run.rows(copies):
                file.write(row)
            file.end()
            log = run.log(stamp, stamp_of(content), out)
            text = json.dumps(log.to_json(), ensure_ascii=False, indent=1) + "\n"
            write_whole(log_to, text.encode("utf-8", "backslashreplace"), mode=FILE)
            is_logged = True
    except BaseException:
        if is_logged:  # a log without its file would be misleading
            log_to.unlink(missing_ok=True)
        raise
    return log


def _check_names(columns: list[str]) -> None:
    repeated = [name for name in columns if columns.count(name) > 1]
    if repeated:
        raise UsageError(f"--keep {repeated[0]}: a standard column has that name; rename yours")
    for name in columns:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--keep {shown(name)!r}: its name has half of a surrogate pair, which is no "
                "character; rename the column"
            ) from error


class _Run:
    """One cleaning: the rows that are written, and the effect of each rule."""

    def __init__(self, detected: Detected, cleaner: RowCleaner, options: CleanOptions) -> None:
        self._detected, self._cleaner, self._options = detected, cleaner, options
        self.read = self.kept = 0
        self._names: set[str] = set()
        self._has_unit = False
        rules = {rule.name: rule.what for rule in RULES} | _OTHER_CHANGES | DROPS
        self._entries = {name: RuleChanges(name, what) for name, what in rules.items()}
        if options.duplicates != "keep":
            name = f"{options.duplicates}-duplicates"
            what = _COUPLING[options.duplicates]
            self._entries[name] = RuleChanges(name, what, couples_units=True)

    def columns(self) -> list[str]:
        """Returns the columns of a CSV, with the reserved one if the source's first row has it."""
        first = next(row for _, row in self._detected.rows())
        return [name for name in self._cleaner.columns() if name != UNIT or name in first]

    def copies(self) -> frozenset[int]:
        """Returns the numbers of the rows whose text is a copy of an earlier one's."""
        prints, numbers = Fingerprints(near=self._options.duplicates == "near"), []
        for number, _, text, _ in self._each():
            if text:
                prints.add(text)
                numbers.append(number)
        first = prints.near()
        return frozenset(numbers[i] for i, one in enumerate(first.tolist()) if one != i)

    def rows(self, copies: frozenset[int]) -> Iterator[Row]:
        """Yields the clean rows, and counts what the rules did."""
        name, ids = self._detected.path.name, dict[str, int]()
        for number, row, _, rules in self._each():
            self.read += 1
            if self.read % STEP == 0:
                self._options.on_rows(self.read)
            if row is None:
                put(self._entries[next(iter(rules))].dropped, number)
                continue
            if number in copies:
                put(self._entries[f"{self._options.duplicates}-duplicates"].dropped, number)
                continue
            own = written(row.get("id"))
            if own is not None and ids.setdefault(own, number) != number:
                raise DataError(
                    f"{name}, row {number}: duplicate identifier, also in row {ids[own]}; correct "
                    "one, or leave --id out"
                )
            for rule in rules:
                put(self._entries[rule].changed, number)
            self.kept += 1
            yield row

    def left_out(self) -> list[str]:
        """Returns the source's columns that are not in the output."""
        used = {*self._cleaner.roles.columns().values(), UNIT, *self._options.keep}
        return sorted(self._names - used)

    def log(self, read: Stamp, written_file: Stamp, out: Path) -> CleaningLog:
        """Returns what was done to which file.

        Args:
            read: The source, before its first row was read.
            written_file: The cleaned rows.
            out: The path that these get.

        Raises:
            DataError: No row is left, or the source changed meanwhile.
        """
        path = self._detected.path
        if not self.kept:
            raise DataError(
                f"{path}: none of {counted(self.read, 'row')} is left: {self._dropped()}; leave "
                "filters out (--language, --min-chars, --max-chars, --duplicates), name other "
                "columns, or look at the rows with cloister data check"
            )
        if stamp_of(path).sha256 != read.sha256:
            raise DataError(
                f"{path}: changed while it was read; run the command again once it is complete"
            )
        content = {"bytes": written_file.size, "sha256": written_file.sha256}
        return CleaningLog(
            {**self._detected.to_json(), "sha256": read.sha256, "rows": self.read},
            {"name": out.name, **content, "rows": self.kept},
            self._cleaner.roles.columns(),
            self._cleaner.roles.guessed,
            self.left_out(),
            self.entries(),
            steps_of(path, read.sha256),
        )

    def _dropped(self) -> str:
        """Returns which rules left out how many rows, in words, the largest number first."""
        found = [(count(one.dropped), one) for one in self.entries() if one.dropped]
        found.sort(key=lambda one: -one[0])
        return ", ".join(f"{rows:,} by the rule {one.rule} ({one.what})" for rows, one in found)

    def entries(self) -> list[RuleChanges]:
        """Returns the effect of each rule that was applied."""
        skipped = self._options.rows.skip
        return [entry for name, entry in self._entries.items() if name not in skipped]

    def _each(self) -> Iterator[tuple[int, Row | None, str, set[str]]]:
        name = self._detected.path.name
        for number, row in self._detected.rows():
            self._names |= row.keys()
            yield number, *self._cleaner.clean(row, f"{name}, row {number}", number)
