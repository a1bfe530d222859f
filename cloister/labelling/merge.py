"""Merges several annotators' answers by majority, and lists the disputed records for a decision.

A record's merged answer depends only on the answers to that record, so merging couples no units.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.detected import Detected, detect_form
from cloister.data.outputs import check_new, new_file, sha256_of
from cloister.data.step_log import steps_of
from cloister.data.step_writing import DataStep, check_no_log, write_step
from cloister.data.tag_schemes import as_bio
from cloister.data.values import Row, Value
from cloister.errors import UsageError
from cloister.files import bad_file
from cloister.labelling.annotated import Annotated, read_annotated
from cloister.labelling.scheme import Answer, Kind, as_value
from cloister.labelling.to_label import ANSWERS, number_of


@dataclass(frozen=True)
class Merged:
    """The merged answers of several annotators.

    Attributes:
        answers: For each record, the answer that more than half of its annotators gave (for
            scores, the median); None: there is no majority.
        decided: Records whose answer a person decided.
        disputed: Undecided records to which two annotators gave different answers.
    """

    answers: Mapping[int, Answer | None]
    decided: frozenset[int]
    disputed: tuple[int, ...]


def merge(annotated: Annotated, decided: Annotated | None = None) -> Merged:
    """Merges answers by majority.

    Args:
        annotated: The annotators' answers.
        decided: Answers that replace the majority's; None: there are none.
    """
    last = {} if decided is None else {k: v[0] for k, v in decided.answers.items()}
    answers: dict[int, Answer | None] = {}
    disputed = []
    for number, several in annotated.answers.items():
        given = [answer for answer in several if answer is not None]
        if number in last:
            answers[number] = last[number]
            continue
        answers[number] = majority(given, annotated.kind)
        if len(set(given)) > 1:
            disputed.append(number)
    return Merged(answers, frozenset(last.keys() & answers.keys()), tuple(disputed))


def majority(given: Sequence[Answer], kind: Kind) -> Answer | None:
    """Returns the answer of more than half of a record's annotators; None: there is no majority.

    Args:
        given: Their answers, at least one.
        kind: Kind of the answers. For `several`, each label is counted by itself; for `entities`,
            each word's tag; for scores, the median is returned.
    """
    half = len(given) / 2
    if kind == "score":
        return float(statistics.median(a for a in given if isinstance(a, float)))
    if kind == "several":
        counts = Counter(label for a in given if isinstance(a, tuple) for label in a)
        if any(count == half for count in counts.values()):
            return None
        return tuple(sorted(label for label, count in counts.items() if count > half))
    if kind == "entities":
        tags = [
            _most(word, half)
            for word in zip(*(a for a in given if isinstance(a, tuple)), strict=True)
        ]
        whole = [tag for tag in tags if tag is not None]
        return as_bio(whole) if len(whole) == len(tags) else None
    return _most([a for a in given if isinstance(a, str)], half)


def _most(given: Sequence[str], half: float) -> str | None:
    name, count = Counter(given).most_common(1)[0]
    return name if count > half else None


def read_decided(path: Path, annotated: Annotated) -> Annotated:
    """Reads a file of decided answers to disputed records.

    Raises:
        UsageError: It has an answer to a record that no annotator answered.
    """
    found = read_annotated([path], annotated.column)
    if strange := [number for number in found.answers if number not in annotated.answers]:
        raise UsageError(
            f"--decided: {path} decides record {strange[0]}, which no annotator answered; give "
            "the decisions on these annotators' disagreements"
        )
    return found


def write_merged(annotated: Annotated, merged: Merged, out: Path, files: Sequence[Path]) -> int:
    """Writes the records that have an answer, in the order of the source; returns how many.

    Args:
        annotated: The annotators' answers.
        merged: The merged answers.
        out: A new file; its log is written beside it.
        files: The annotators' files, for the log.

    Raises:
        UsageError: `out` exists already, or no record has an answer.
    """
    rows = [
        {**annotated.rows[number], annotated.column: as_value(answer)}
        for number, answer in merged.answers.items()
        if answer is not None
    ]
    if not rows:
        raise UsageError(
            f"--out: no record has a majority, so {out} would be empty; leave --out out"
        )
    check_no_log(out)
    hashes = {file.name: sha256_of(file) for file in files}
    steps = (one for file in files for one in steps_of(file, sha256_of(file)))
    # Until all records are answered, units are coupled: see `log.write_log`.
    coupled = any(bool(step.get("couples_units")) for step in steps)
    counts = {"answered": len(rows), "disputed": len(merged.disputed)}
    _write(rows, out, (detect_form(files[0]), DataStep("agreement", hashes, counts, coupled)))
    return len(rows)


def write_disputed(annotated: Annotated, merged: Merged, out: Path) -> int:
    """Writes the disputed records with all annotators' answers; returns their number.

    Raises:
        UsageError: `out` exists already.
    """
    check_new(out)
    rows = []
    for number in merged.disputed:
        answers: dict[str, Value] = {
            name: None if answer is None else as_value(answer)
            for name, answer in zip(annotated.annotators, annotated.answers[number], strict=True)
        }
        rows.append({**annotated.rows[number], ANSWERS: answers})
    if rows:
        _write(rows, out, None)
    return len(rows)


def _write(rows: Sequence[Row], out: Path, log: tuple[Detected, DataStep] | None) -> None:
    try:
        with new_file(out) as (writer, content):
            for at, row in enumerate(rows, start=1):
                writer.add(row, f"record {number_of(row, at)}")
            writer.end()
            if log is not None:
                write_step(log[0], out, content, log[1])
    except OSError as error:
        raise bad_file(error) from error
