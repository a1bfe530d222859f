"""The protocol of a task: how a record becomes tokens, its loss, and a model's scores.

Shapes: B records in a batch, T tokens of the longest of them, C classes or tags, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from cloister.data.records import Record, RecordKind
from cloister.tasks.config import TaskConfig as TaskConfig
from cloister.tasks.config import TaskKind

# The target that a loss skips: the default of torch.nn.functional.cross_entropy.
IGNORE = -100
UNKNOWN_LABEL = "its label is not among the study's"


@dataclass(frozen=True, slots=True)
class Example:
    """A record after encoding: its token ids, and the target that is learnt.

    Attributes:
        input_ids: Token ids, at most `max_length`.
        target: A class id, or one id for each token (`IGNORE` where no loss is taken; for a causal
            LM the id of the same token, which `record_losses` shifts).
        reference: Value that a meter compares predictions with if `target` is not enough (the true
            tags of all words, including words that were cut off).
        words: If targets are words' tags: the index of the word of each target (without `IGNORE`).
        rejected: For a pair of preferences: the sequence that is not preferred.
        segments: Of two texts read together, 0 at tokens of the first and 1 at tokens of the
            second, where the tokenizer tells them apart; else empty.
        weight: Of a pair's sequence in training: the factor of the sum of its token losses
            (`training.preferences`); None: the mean of the token losses is taken.
        wanted: Where a record has a number for each of C outputs: those that are not 0, as pairs
            of an output and a number from 0 to 1; `target` is 0 then.
        seen: Outputs that are not candidates for this record, because the person has them already.
    """

    input_ids: tuple[int, ...]
    target: int | tuple[int, ...]
    reference: tuple[str, ...] = field(default=())
    words: tuple[int, ...] = field(default=())
    rejected: Example | None = None
    segments: tuple[int, ...] = field(default=())
    weight: float | None = None
    wanted: tuple[tuple[int, float], ...] = field(default=())
    seen: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class BatchShape:
    """A shape that does not depend on the examples in it (`training.shapes`).

    Attributes:
        rows: Rows of the batch; those beyond its examples are dummies.
        length: Padded tokens of a row.
        counts: All row counts with which a row of this length has equal bits, ascending.
    """

    rows: int
    length: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded to the longest of them, or to a fixed shape.

    Attributes:
        input_ids: Token ids, int64 [B, T].
        attention_mask: 1 at tokens, 0 at padding, int64 [B, T].
        target: int64 [B] or [B, T] (`IGNORE` at padding), or float32 [B, C] of what is wanted.
        examples: The examples in the order of their rows; further rows are dummies.
        shape: The fixed shape, where it has one.
        segments: Which text each token is of, int64 [B, T], 0 at padding; None: all of one.
    """

    input_ids: Tensor
    attention_mask: Tensor
    target: Tensor
    examples: tuple[Example, ...]
    shape: BatchShape | None = None
    segments: Tensor | None = None


class Meter(Protocol):
    """Collects a model's predictions and states its scores once."""

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch: logits are [B, C] or [B, T, C]."""

    def result(self) -> dict[str, float]:
        """Scores of everything added, by name; the mean per-record loss is among them."""

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Scores per class, tag type or role, where the task has them; else empty."""


class Task(Protocol):
    """A kind of supervision, bound to its labels and tokenizer.

    Guarantees:
        `record_losses(logits, batch)[i]` depends on record i alone: token losses are averaged
        within the record, never over the batch, so that one record's gradient does not change
        with its companions.
    """

    @property
    def kind(self) -> TaskKind:
        """The value of `task.kind` in a recipe that selects this task."""

    @property
    def record_kind(self) -> RecordKind:
        """Kind of records that it reads, which decides how files are loaded."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the C outputs in order; empty for a causal LM, whose outputs are tokens."""

    @property
    def max_length(self) -> int:
        """Longest record in tokens; longer ones are cut."""

    @property
    def primary_metric(self) -> str:
        """The one score that tables and plots show."""

    def encode(self, record: Record) -> Example:
        """Turns a record into tokens.

        Reads a record only up to the bounds of `cloister.tasks.cut`, so that no record takes long.

        Raises:
            MisfitError: The record's label or tags are not among `labels`, or its conversation
                cannot be rendered.
        """

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads examples to the longest of them, or to a fixed shape with dummy rows."""

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """One float32 loss per row, [B]; 0 for a record in which nothing is to be learnt."""

    def meter(self) -> Meter:
        """Returns a new meter, which has no predictions yet."""
