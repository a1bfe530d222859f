"""Reads a user's own disturbed texts, and two published suites, as records of the model's task.

- AdversarialGLUE's development set (Wang et al. 2021, arXiv:2111.02840), a JSON object with tasks;
- HateCheck (Röttger et al. 2021, arXiv:2012.15606), a CSV with `functionality` and `test_case`;
- own pairs: a data file of any format with the columns `text`, `disturbed` and `label`.

A suite's case is read if its label is one of the model's labels; upper and lower case, `_`, `-` and
blanks do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.bounds import listed
from cloister.data.load import file_rows
from cloister.data.records import PairRecord, TextRecord
from cloister.data.source import released_as
from cloister.data.values import Row
from cloister.errors import DataError, UsageError
from cloister.files import open_file
from cloister.tasks.task import Task

# By task of GLUE: the columns of its text or texts, and its labels in the order of their numbers.
GLUE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sst2": (("sentence",), ("negative", "positive")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "mnli-mm": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
}
# Largest JSON object of a suite: AdversarialGLUE's has 0.2 MB.
MOST_BYTES = 2**26


@dataclass(frozen=True)
class SuiteCase:
    """A disturbed text of a suite, with its label.

    Attributes:
        group: Its task or functionality in the suite.
        record: The disturbed text with its label.
        clean: The original text with its label; None: the suite does not have it.
    """

    group: str
    record: TextRecord
    clean: TextRecord | None = None


def read_suite(path: Path, task: Task) -> list[SuiteCase]:
    """Reads a suite for a model that gives one label to a text or pair.

    Args:
        path: The file.
        task: The model's task.

    Raises:
        UsageError: The task gives no labels to texts, or none of the suite's labels fits.
        DataError: The file cannot be read, or has none of the three forms.
    """
    if task.kind not in ("sequence-classification", "text-pairs"):
        raise UsageError(
            f"--suite {path}: a suite has one label per text, but this is a model for {task.kind}; "
            "leave --suite out"
        )
    labels = {_plain(label): label for label in task.labels}
    is_pair = task.kind == "text-pairs"
    document = _object(path)
    cases, seen = [], set()
    for group, texts, label, clean in _rows(path, document):
        seen.add(label)
        if len(texts) == 1 + is_pair and _plain(label) in labels:
            own = labels[_plain(label)]
            before = None if clean is None else _record((clean,), own)
            cases.append(SuiteCase(group, _record(texts, own), before))
    if not cases:
        raise UsageError(
            f"--suite {path}: none of its labels ({listed(sorted(seen))}) with "
            f"{'two texts' if is_pair else 'one text'} is among the model's "
            f"({listed(task.labels)}); rename them in a copy of the file"
        )
    return cases


def _plain(label: str) -> str:
    return "".join(one for one in label.casefold() if one not in "_- ")


def _record(texts: Sequence[str], label: str) -> TextRecord:
    if len(texts) == 2:
        return PairRecord(texts[0], label, text_b=texts[1])
    return TextRecord(texts[0], label)


def _object(path: Path) -> Mapping[str, Any] | None:
    """Returns a file's JSON object of GLUE tasks; None: the file has another form."""
    if path.suffix.lower() != ".json":
        return None
    try:
        with open_file(path) as file:
            document = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); correct --suite") from error
    return document if isinstance(document, dict) and set(document) <= set(GLUE) else None


def _rows(
    path: Path, document: Mapping[str, Any] | None
) -> Iterator[tuple[str, tuple[str, ...], str, str | None]]:
    """Yields group, disturbed texts, label and original text of each case."""
    if document is not None:
        for name, rows in document.items():
            columns, labels = GLUE[name]
            for number, row in enumerate(rows, 1):
                try:
                    yield name, tuple(str(row[one]) for one in columns), labels[row["label"]], None
                except (KeyError, IndexError, TypeError) as error:
                    raise DataError(
                        f"{path}, {name}, case {number}: {', '.join(columns)} and a label from 0 "
                        f"to {len(labels) - 1} are needed"
                    ) from error
        return
    hate = ("functionality", "test_case", "label_gold")
    own = ("text", "disturbed", "label")
    for number, row in file_rows(path, "test", (*hate, *own), released_as("--suite")):
        columns = hate if hate[0] in row else own
        values = [_text(row, column, path, number) for column in columns]
        if columns is hate:
            yield values[0], (values[1],), values[2], None
        else:
            yield path.stem, (values[1],), values[2], values[0]


def _text(row: Row, column: str, path: Path, number: int) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{path}, row {number}: no text in {column!r}; a suite has the columns text, disturbed "
            "and label, or is HateCheck's CSV or AdversarialGLUE's JSON"
        )
    return value
