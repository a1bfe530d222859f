"""Reads a file, and its test file, in one pass: what they hold, and what looks wrong.

Records are not kept, only lengths, counts, 8 bytes and a signature for each text, and a sample of
texts to detect languages. A report is private: it has true counts of private records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.data.census import Census, census_of
from cloister.data.check.compared import Compared
from cloister.data.check.findings import FileFinding
from cloister.data.check.labels import Labels
from cloister.data.check.sampled import LanguageSample
from cloister.data.check.scores import ScoreSpread
from cloister.data.check.texts import TextLengths
from cloister.data.check.tokens import CountTokens, Tokens
from cloister.data.columns import Columns
from cloister.data.detected import Detected, detect_form
from cloister.data.records import ONE_LABEL
from cloister.data.roles import Roles, find_roles, text_of, written
from cloister.data.tag_schemes import as_bio, scheme_of
from cloister.data.targets import labels_of_cell, score_of_cell
from cloister.data.unit_column import UNIT
from cloister.data.values import Row, Value
from cloister.errors import MisfitError, UsageError

VERSION = 1
# Rows between two progress calls.
STEP = 1000


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `check_file`.

    Attributes:
        columns: Columns by role (`text`, `label`, `person`, …) that the caller names.
        encoding: The files' encoding; None: detected.
        separator: The separator of cells; None: detected.
        quotes: Whether `"` encloses cells.
        test: A test file whose texts and persons must not be in the file.
        near: Whether to look for near duplicates.
        count_tokens: Counts tokens under a base; None: not counted.
        max_length: A maximal length in tokens; the report says what it would cut.
        on_rows: Is called now and then with the number of rows read.
        label_separator: Separates several labels in a cell of text; None: a list is needed.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    encoding: str | None = None
    separator: str | None = None
    quotes: bool = True
    test: Path | None = None
    near: bool = True
    count_tokens: CountTokens | None = None
    max_length: int | None = None
    on_rows: Callable[[int], None] = lambda _: None
    label_separator: str | None = None


@dataclass(frozen=True)
class CheckReport:
    """The contents of a file, in counts; private.

    Attributes:
        detected: The file's form.
        roles: The columns that were read.
        rows: Number of rows.
        sections: All other counts, as JSON values by topic.
        findings: What looks wrong.
    """

    detected: Detected
    roles: Roles
    rows: int
    sections: dict[str, Any]
    findings: list[FileFinding]

    def to_json(self) -> dict[str, Any]:
        """Returns the whole report as JSON values."""
        return {
            "version": VERSION,
            "file": self.detected.to_json(),
            "kind": self.roles.kind,
            "roles": self.roles.columns(),
            "guessed": list(self.roles.guessed),
            "rows": self.rows,
            **self.sections,
            "findings": [finding.to_json() for finding in self.findings],
        }


def check_file(path: Path, options: CheckOptions | None = None) -> CheckReport:
    """Detects a file's form and columns, then reads it once and reports on it.

    Args:
        path: A data file of any format.
        options: The options; absent: every check that needs no base.

    Raises:
        UsageError: A column does not exist, or options contradict.
        DataError: The file is missing, damaged, empty, or changed while it was read.
    """
    options = options or CheckOptions()
    detected = detect_form(path, options.encoding, options.separator, quotes=options.quotes)
    roles = find_roles(detected.rows(), options.columns, label_separator=options.label_separator)
    if options.test is not None and roles.split is not None:
        raise UsageError("--test and --split: give only one; each names the parts to compare")
    compared = Compared(near=options.near)
    look = _Look(roles, options, compared)
    look.read(detected, path.name)
    if options.test is not None:
        other = detect_form(
            options.test, options.encoding, options.separator, quotes=options.quotes
        )
        name = options.test.name
        _Look(roles, options, compared).read(other, name if name != path.name else f"test {name}")
    return look.report(detected)


class _Look:
    """Counts everything in one pass."""

    def __init__(self, roles: Roles, options: CheckOptions, compared: Compared) -> None:
        self._roles, self._options, self._compared = roles, options, compared
        self._columns, self._texts, self._labels = Columns(), TextLengths(), Labels()
        self._languages = LanguageSample()
        self._scores = ScoreSpread()
        self._unlabelled = 0
        self._persons: Counter[str] = Counter()
        self._made: Counter[str] = Counter()  # rows by `UNIT`
        self._letters: set[str] = set()
        self._misfits = FileFinding("unusable-row", "rows have no usable text")
        self._nameless = FileFinding("no-person", "rows name no person")
        self._ids: dict[str, int] = {}
        self._same_id = FileFinding("same-id", "rows have the identifier of an earlier one")
        self._tokens: Tokens | None = None
        if options.count_tokens is not None:
            self._tokens = Tokens(options.count_tokens, options.max_length)

    def read(self, detected: Detected, name: str) -> None:
        for number, row in detected.rows():
            self._add(row, number, name)
            if self._columns.rows % STEP == 0:
                self._options.on_rows(self._columns.rows)

    def _add(self, row: Row, number: int, name: str) -> None:
        roles, where = self._roles, f"{name}, row {number}"
        self._columns.add(row, where)
        part = name
        if roles.split is not None:
            part = written(row.get(roles.split)) or "(none)"
        person = self._person(row, number)
        if (unit := written(row.get(UNIT))) is not None:
            self._made[unit] += 1
        if roles.id is not None and (own := written(row.get(roles.id))) is not None:
            if own in self._ids:
                self._same_id.add(number)
            self._ids.setdefault(own, number)
        label = self._label(row, number)
        if roles.kind == "score" and roles.score is not None:
            self._scores.add(_score(row, roles.score, where), number)
        try:
            text = text_of(row, roles, where)
        except MisfitError:
            self._misfits.add(number)
            return
        self._texts.add(text, number)
        if not text.strip():
            return
        self._compared.add(text, part, label, person)
        self._languages.add(text)
        if self._tokens is not None:
            self._tokens.add(text)

    def _person(self, row: Row, number: int) -> str | None:
        if self._roles.person is None:
            return None
        person = written(row.get(self._roles.person))
        if person is None:
            self._nameless.add(number)
        else:
            self._persons[person] += 1
        return person

    def _label(self, row: Row, number: int) -> str | None:
        roles = self._roles
        if roles.kind == "tokens" and roles.tags is not None:
            self._entities(row.get(roles.tags), number)
        if roles.kind == "labels" and roles.labels is not None:
            return self._several(row, roles.labels, number)
        if roles.kind not in ONE_LABEL or roles.label is None:
            return None
        label = written(row.get(roles.label))
        self._labels.add(label, number)
        return label

    def _entities(self, tags: Value, number: int) -> None:
        """Counts a sentence's entities by type, as training reads them in any scheme."""
        if not isinstance(tags, list | tuple):
            return
        written_tags = [str(tag) for tag in tags]
        self._letters |= {tag.partition("-")[0] for tag in written_tags if tag.partition("-")[2]}
        for tag in as_bio(written_tags):
            if tag.startswith("B-"):
                self._labels.add(tag.removeprefix("B-"), number)

    def _several(self, row: Row, column: str, number: int) -> str | None:
        """Counts a row's labels, and returns them as one text, by which copies are compared."""
        try:
            found = labels_of_cell(row.get(column), column, self._roles.label_separator, "")
        except MisfitError:
            self._labels.add(None, number)
            return None
        for label in found:
            self._labels.add(label, number)
        self._unlabelled += not found
        return ", ".join(sorted(found))

    def report(self, detected: Detected) -> CheckReport:
        roles = self._roles
        sections: dict[str, Any] = {
            "columns": self._columns.to_json(),
            "texts": self._texts.to_json(),
            "languages": self._languages.to_json(),
        }
        findings = [f for f in (self._misfits, self._nameless, self._same_id) if f.count]
        findings += self._texts.findings()
        if roles.kind == "score" and roles.score is not None:
            sections["scores"] = self._scores.to_json()
            findings += self._scores.findings()
        if roles.label is not None or roles.tags is not None or roles.labels is not None:
            sections["labels"] = self._labels.to_json()
            findings += self._labels.findings(told_apart=roles.kind in ONE_LABEL)
        if roles.kind == "labels":
            sections["labels"]["texts_without"] = self._unlabelled
        if roles.tags is not None:
            sections["labels"]["scheme"] = scheme_of(self._letters)
        if self._made:
            sections["copies"] = {
                "records": len(self._made),
                "rows": self._made.total(),
                "most_rows_of_a_record": max(self._made.values()),
            }
        if roles.person is not None:
            found = census_of(self._persons)
            sections["units"] = _units(found, self._persons)
            findings += [
                FileFinding("person", warning, found.largest) for warning in found.warnings
            ]
        compared, more = self._compared.report()
        sections |= compared
        findings += more
        if self._tokens is not None:
            sections["tokens"] = self._tokens.to_json()
        return CheckReport(detected, roles, self._columns.rows, sections, findings)


def _units(found: Census, sizes: Counter[str]) -> dict[str, Any]:
    histogram: Counter[int] = Counter(size.bit_length() for size in sizes.values())
    return {
        **found.to_json(),
        "largest": [{"person": n, "records": size} for n, size in sizes.most_common(5)],
        "histogram": [
            {"records": f"{1 << b - 1}–{(1 << b) - 1}", "persons": histogram[b]}
            for b in sorted(histogram)
        ],
    }


def _score(row: Row, column: str, where: str) -> float | None:
    """Returns a row's score; None: it has none, or one that cannot be read."""
    try:
        return score_of_cell(row.get(column), column, where)
    except MisfitError:
        return None
