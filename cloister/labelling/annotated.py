"""Reads several annotators' files and joins their answers by record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.detected import detect_form
from cloister.data.outputs import json_text
from cloister.data.roles import written
from cloister.data.values import Row, shown
from cloister.errors import DataError, UsageError
from cloister.files import bad_file
from cloister.labelling.log import settings_of
from cloister.labelling.scheme import COLUMNS, Answer, Kind, answer_of
from cloister.labelling.to_label import ANNOTATOR, ANSWERS, ROW, number_of


@dataclass(frozen=True)
class Annotated:
    """Answers of several annotators to the same records.

    Attributes:
        kind: Kind of the answers.
        column: Column of a row that holds the answer.
        annotators: Their names, in the order of the files.
        labels: All labels or entity types in the answers.
        answers: For each record one answer per annotator; None: the annotator gave none.
        rows: For each record the other columns, from the first file that has the record.
    """

    kind: Kind
    column: str
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    answers: Mapping[int, Sequence[Answer | None]]
    rows: Mapping[int, Row]


def read_annotated(files: Sequence[Path], column: str | None = None) -> Annotated:
    """Reads annotators' files and matches their rows by record number.

    Args:
        files: One file for each annotator, as the page writes them; or any files with a column of
            record numbers (`cloister_row`).
        column: Column of the answers; None: the one in the first file's log, or a usual name.

    Raises:
        UsageError: A file is given twice, or does not have the column.
        DataError: A file is damaged, its rows have no record number, or a record's text differs
            between two files.
    """
    for at, file in enumerate(files):
        if any(file.exists() and other.exists() and file.samefile(other) for other in files[:at]):
            raise UsageError(f"{file} is given twice; give one file for each annotator")
    kind, column = _answer_column(files[0], column)
    answers: dict[int, list[Answer | None]] = {}
    rows: dict[int, Row] = {}
    names: list[str] = []
    for at, file in enumerate(files):
        name = file.stem
        for number, answer, row in _rows(file, kind, column):
            where = f"{file.name}, record {number}"
            mine = answers.setdefault(number, [None] * len(files))
            if mine[at] is not None:
                raise DataError(f"{where}: duplicate record; needed is one row for each record")
            mine[at] = answer
            name = written(row.get(ANNOTATOR)) or name
            rest = {k: v for k, v in row.items() if k not in (column, ANNOTATOR, ANSWERS)}
            first = rows.setdefault(number, rest)
            if json_text(first) != json_text(rest):
                raise DataError(
                    f"{where}: its text differs from that in an earlier file; give files that "
                    "label the same source"
                )
            _compare_lengths(mine, kind, where)
        names.append(name)
    if len(set(names)) < len(names):
        names = [f"{name} ({file.name})" for name, file in zip(names, files, strict=True)]
    ordered = dict(sorted(answers.items()))
    labels = _labels(ordered, kind)
    return Annotated(kind, column, tuple(names), labels, ordered, rows)


def _answer_column(file: Path, column: str | None) -> tuple[Kind, str]:
    """Returns the kind and the column of a file's answers."""
    if column in (ROW, ANNOTATOR, ANSWERS):
        raise UsageError(
            f"--column {column}: this column identifies the record or the annotator; name the "
            "column of answers"
        )
    form = detect_form(file)
    if (known := settings_of(file)) is not None and column in (None, known[0].column):
        return known[0].scheme.kind, known[0].column
    names = form.names()
    kinds = {kind: column or usual for kind, usual in COLUMNS.items()}
    for _, row in form.rows():
        for kind, name in kinds.items():
            if name in row and answer_of(row[name], kind) is not None:
                return kind, name
        break
    held = ", ".join(shown(name) for name in names[:12])
    raise UsageError(
        f"{file}: no column of answers ({column or 'label, labels, score or tags'}; found: "
        f"{held}); name it with --column"
    )


def _rows(file: Path, kind: Kind, column: str) -> list[tuple[int, Answer, Row]]:
    found = []
    try:
        for line, row in detect_form(file).rows():
            where = f"{file.name}, row {line}"
            answer = answer_of(row.get(column), kind)
            if answer is None:
                raise DataError(f"{where}: no answer in {shown(column)!r}; correct the row")
            number = number_of(row, -1)
            if number < 0:
                raise DataError(
                    f"{where}: no {ROW}, the record's number by which files are compared; use "
                    "files that cloister data label wrote"
                )
            found.append((number, answer, row))
    except OSError as error:
        raise bad_file(error, "read") from error
    return found


def _compare_lengths(answers: Sequence[Answer | None], kind: Kind, where: str) -> None:
    lengths = {len(a) for a in answers if isinstance(a, tuple)}
    if kind == "entities" and len(lengths) > 1:
        raise DataError(
            f"{where}: {' and '.join(map(str, lengths))} tags; needed is one for each word"
        )


def _labels(answers: Mapping[int, Sequence[Answer | None]], kind: Kind) -> tuple[str, ...]:
    given: set[str] = set()
    for one in (answer for several in answers.values() for answer in several):
        if isinstance(one, str):
            given.add(one)
        elif isinstance(one, tuple):
            names = (tag[2:] for tag in one if tag != "O") if kind == "entities" else one
            given.update(names)
    return tuple(sorted(given))
