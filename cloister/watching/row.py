"""Defines a prediction of the stream and its features, for drift and surges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.tasks.config import TaskKind


@dataclass(frozen=True)
class Features:
    """The features of a row, without any text.

    Attributes:
        categories: One answer for each name, such as the label.
        marks: Any number of answers, such as labels or types of entities; None: the task has one
            answer.
        numbers: Numbers by name, such as the confidence; missing ones are left out.
    """

    categories: Mapping[str, str]
    marks: frozenset[str] | None
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class StreamRow:
    """A prediction of the stream, with its input and time if the row has them.

    Attributes:
        features: The features for drift.
        answers: The answers that topics count.
        score: The score, for scoring; otherwise None.
        text: The input, if the row has it.
        cells: The columns that topics name.
        at: The row's own time in seconds since 1970; None: it has none.
        embedding: The input's embedding; empty: the row has none.
    """

    features: Features
    answers: frozenset[str]
    score: float | None = None
    text: str | None = None
    cells: Mapping[str, str] = field(default_factory=dict)
    at: float | None = None
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True)
class WatchedTask:
    """The features of a task, and the methods that do not apply to it.

    Attributes:
        features: Names of the features, in words.
        unfit: Methods that do not apply, with the reason.
    """

    features: tuple[str, ...]
    unfit: Mapping[str, str]


_NO_MARKS = "a row has one answer, which is compared as a whole"
METHODS: dict[TaskKind, WatchedTask] = {
    "sequence-classification": WatchedTask(("label", "confidence"), {}),
    "text-pairs": WatchedTask(("label", "confidence"), {}),
    "multi-label-classification": WatchedTask(("labels", "labels a row", "confidence"), {}),
    "token-classification": WatchedTask(("entity types", "entities a row", "confidence"), {}),
    "scoring": WatchedTask(
        ("score", "grade"),
        {"confidence": "a score has no probability; the score itself is compared"},
    ),
    "retrieval": WatchedTask(
        ("passage", "similarity"),
        {"confidence": "a similarity is no probability; the similarity is compared"},
    ),
    "recommendation": WatchedTask(
        ("first item", "first score"),
        {"confidence": "an item's score is no probability; the first item's score is compared"},
    ),
    "causal-lm": WatchedTask(
        ("refusal", "reply length"),
        {
            "chi-square on labels": "a chat has no labels; refusals are tested in their place",
            "confidence": "a reply has no probability; its length is compared",
        },
    ),
}
