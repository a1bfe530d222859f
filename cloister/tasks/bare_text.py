"""A text without anything to learn, encoded by a task that reads one text a record."""

from __future__ import annotations

from cloister.data.records import LabelsRecord, Record, ScoreRecord, TextRecord
from cloister.tasks.scoring import Scoring
from cloister.tasks.task import Example, Task


def encode_bare(task: Task, text: str) -> Example:
    """Encodes a text; what the example says is to be learnt means nothing.

    Args:
        task: One whose record is one text (`ONE_TEXT`).
        text: Not empty.
    """
    return task.encode(bare_record(task, text))


def bare_record(task: Task, text: str) -> Record:
    """A record of a text that fits the task, with a label or score that means nothing."""
    if isinstance(task, Scoring):
        return ScoreRecord(text, task.scale.low)
    if task.record_kind == "labels":
        return LabelsRecord(text, ())
    return TextRecord(text, task.labels[0])


def score_ends(task: Task) -> tuple[float, float]:
    """The lowest and the highest score of a task's scale; 0 and 1 where it has none."""
    return (task.scale.low, task.scale.high) if isinstance(task, Scoring) else (0.0, 1.0)
