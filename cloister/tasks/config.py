"""The `[task]` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cloister.bounds import Between, Items, Text
from cloister.data.records import RecordKind
from cloister.errors import UsageError
from cloister.fields import called, check_bounds

TaskKind = Literal["sequence-classification", "token-classification", "causal-lm"]

# Which records each kind of task reads.
RECORDS: dict[TaskKind, RecordKind] = {
    "sequence-classification": "text",
    "token-classification": "tokens",
    "causal-lm": "messages",
}

# The 2,000 three-character categories of ICD-10, twice over; a head has one row for each.
MOST_LABELS = 5000
LONGEST_LABEL = 256
# Three times the longest template that we found on the hub (about 20,000 characters).
LONGEST_TEMPLATE = 65_536
# The context of today's long language models.
LONGEST_RECORD = 131_072


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The `[task]` section of a recipe.

    Attributes:
        kind: What is learnt from a record.
        labels: Class names (classification) or entity types without their B-/I- prefix (token
            classification). Empty: taken from the public test and validation sets, which only a
            simulation may do and states in its run's `recipe.toml`; a deployment declares them.
            They are never read off private records, which would leak.
        max_length: Longest record in tokens; what is longer is cut at its end.
        chat_template: Jinja template of a conversation; absent: the tokenizer's own, else a plain
            built-in one.
    """

    kind: TaskKind = field(
        default="sequence-classification", metadata=called("task name type task_type")
    )
    labels: Annotated[
        tuple[Annotated[str, Text(LONGEST_LABEL, lines=True, least=1)], ...], Items(MOST_LABELS)
    ] = ()
    # MiniLM was trained on 128 tokens; most notes and intents are shorter.
    max_length: Annotated[int, Between(2, LONGEST_RECORD)] = field(
        default=128, metadata=called("max_len max_seq_length max_tokens")
    )
    chat_template: Annotated[str, Text(LONGEST_TEMPLATE, lines=True)] | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if len(set(self.labels)) != len(self.labels):
            raise UsageError("labels: each may be named once only")
