"""Encodes a text without a label, for tasks whose record is one text."""

from __future__ import annotations

from cloister.data.records import LabelsRecord, Record, ScoreRecord, TextRecord
from cloister.tasks.scoring import Scoring
from cloister.tasks.task import Example, Task


def encode_bare(task: Task, text: str) -> Example:
    """Encodes a text; the target of the example has no meaning.

    Args:
        task: A task whose record is one text (`ONE_TEXT`).
        text: The text; not empty.
    """
    return task.encode(bare_record(task, text))


def bare_record(task: Task, text: str) -> Record:
    """Returns a record of a text that fits the task; its label or score has no meaning."""
    if isinstance(task, Scoring):
        return ScoreRecord(text, task.scale.low)
    if task.record_kind == "labels":
        return LabelsRecord(text, ())
    return TextRecord(text, task.labels[0])


def score_ends(task: Task) -> tuple[float, float]:
    """Returns the lowest and the highest score of a task's scale; 0 and 1 if it has none."""
    return (task.scale.low, task.scale.high) if isinstance(task, Scoring) else (0.0, 1.0)
