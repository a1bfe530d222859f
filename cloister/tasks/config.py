"""The `[task]` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloister.errors import UsageError

TaskKind = Literal["sequence-classification", "token-classification", "causal-lm"]


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The `[task]` section of a recipe.

    Attributes:
        kind: What is learnt from a record.
        labels: Class names (classification) or entity types without their B-/I- prefix (token
            classification). Empty: taken from the training set, which only a simulation may do;
            a deployment declares them, because a label set read off private records leaks.
        max_length: Longest record in tokens; what is longer is cut at its end.
        chat_template: Jinja template of a conversation; absent: the tokenizer's own, else a plain
            built-in one.
    """

    kind: TaskKind = "sequence-classification"
    labels: tuple[str, ...] = ()
    max_length: int = 128  # MiniLM was trained on 128 tokens; most notes and intents are shorter
    chat_template: str | None = None

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise UsageError(f"max_length: {self.max_length} given; at least 2 tokens are needed")
        if len(set(self.labels)) != len(self.labels):
            raise UsageError("labels: each may be named once only")
