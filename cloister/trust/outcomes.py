"""Scores a model on each record, as numerator and denominator of the whole score.

Every score of a report is a ratio of sums over records, so one bootstrap fits all scores. Accuracy
is correct answers over records. F1 is twice the true positives over the sum of predicted and real
positives. An error is the sum of errors over records. A chat's loss is the sum of losses over
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cloister.data.records import (
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.serving.model import Model
from cloister.serving.predictions import Classified, Labelled, Prediction, Retrieved, Scored, Tagged
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskKind
from cloister.tasks.ranking import SHOWN
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.scoring import Scoring
from cloister.tasks.task import IGNORE
from cloister.tasks.token import spans_of
from cloister.training.batches import physical_batches
from cloister.training.units import singles
from cloister.trust.answers import answer_of
from cloister.trust.items import ItemsInTexts, next_items


@dataclass(frozen=True)
class Metric:
    """The score that reports measure for a task.

    Attributes:
        name: The score's name.
        is_share: Whether it is a share of records, for which Wilson's interval holds.
        is_error: Whether a smaller value is better.
    """

    name: str
    is_share: bool = False
    is_error: bool = False


METRICS: dict[TaskKind, Metric] = {
    "sequence-classification": Metric("accuracy", is_share=True),
    "text-pairs": Metric("accuracy", is_share=True),
    "retrieval": Metric("recall@1", is_share=True),
    "multi-label-classification": Metric("micro-F1"),
    "token-classification": Metric("entity F1"),
    "scoring": Metric("mean absolute error", is_error=True),
    "recommendation": Metric(f"hit rate@{SHOWN}", is_share=True),
    "causal-lm": Metric("loss per token (nats)", is_error=True),
}


@dataclass(frozen=True)
class Outcomes:
    """A model's predictions for records, and their scores.

    Attributes:
        parts: Numerator and denominator of each record, float64 [2, N].
        predictions: The prediction for each record; empty for a chat, whose replies' losses are
            measured, and for recommendation.
        answers: The answers as text; for recommendation, the first item; empty for a chat.
    """

    parts: np.ndarray
    predictions: tuple[Prediction, ...]
    answers: tuple[str, ...]


def outcomes(model: Model, records: Sequence[Record]) -> Outcomes:
    """Predicts for records and compares with their labels.

    Args:
        model: The finished model.
        records: Public records of the model's task.
    """
    task = model.workspace.task
    if isinstance(task, CausalChat):
        return Outcomes(_losses(model, task, records), (), ())
    if isinstance(task, Recommendation):
        persons = [record for record in records if isinstance(record, ItemsRecord)]
        parts, first = next_items(model, task, persons)
        return Outcomes(parts, (), first)
    scale = task.scale if isinstance(task, Scoring) else None
    predictions = tuple(model.stream([input_of_record(one) for one in records]))
    pairs = zip(records, predictions, strict=True)
    parts = np.array([_part(record, one) for record, one in pairs], dtype=float).reshape(-1, 2).T
    return Outcomes(parts, predictions, tuple(answer_of(one, scale) for one in predictions))


def input_of_record(record: Record) -> Any:
    """Returns the input for a record, in the form that `Model.predict` takes."""
    if isinstance(record, TokenRecord):
        return record.tokens
    if isinstance(record, PairRecord):
        return (record.text, record.text_b)
    if isinstance(record, ChatRecord):
        return record.messages or record.text
    if isinstance(record, ItemsInTexts):
        return record.texts
    if isinstance(record, ItemsRecord):
        return record.items
    assert isinstance(record, TextRecord | LabelsRecord | ScoreRecord)
    return record.text


def _part(record: Record, prediction: Prediction) -> tuple[float, float]:
    if isinstance(prediction, Classified | Retrieved):
        assert isinstance(record, TextRecord)
        return float(answer_of(prediction) == record.label), 1.0
    if isinstance(prediction, Labelled):
        assert isinstance(record, LabelsRecord)
        return _overlap(set(prediction.labels), set(record.labels))
    if isinstance(prediction, Tagged):
        assert isinstance(record, TokenRecord)
        return _overlap(set(spans_of(prediction.tags)), set(spans_of(record.tags)))
    assert isinstance(prediction, Scored)
    assert isinstance(record, ScoreRecord)
    return abs(prediction.score - record.score), 1.0


def _overlap(found: set[Any], true: set[Any]) -> tuple[float, float]:
    return 2.0 * len(found & true), float(len(found) + len(true))


def _losses(model: Model, task: CausalChat, records: Sequence[Record]) -> np.ndarray:
    """Returns loss and number of tokens of the assistant's turns in each conversation, [2, N]."""
    examples = model.workspace.encode(records)
    place = {id(example): number for number, example in enumerate(examples)}
    parts = np.zeros((2, len(examples)))
    with torch.no_grad():
        for group in physical_batches(singles(examples), model.max_tokens):
            batch = task.collate([example for (example,) in group])
            sums = model.workspace.network.token_losses(batch).double().sum(dim=1)
            counts = (batch.target[:, 1:] != IGNORE).sum(dim=1)
            for (example,), loss, count in zip(group, sums, counts, strict=True):
                parts[:, place[id(example)]] = float(loss), float(count)
    return parts
