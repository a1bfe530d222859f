"""The base class for a task of your own on texts; the network gives each text C outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.data.records import Record, RecordKind, TextRecord
from cloister.errors import MisfitError
from cloister.tasks.collate import collate
from cloister.tasks.cut import cut_text
from cloister.tasks.task import UNKNOWN_LABEL, Batch, BatchShape, Example


@dataclass(frozen=True)
class TextTask(ABC):
    """Base class for a task of your own on single texts.

    Write `target` and `record_losses`, and `scores` if you want more than the loss. Further
    dataclass fields become options of a recipe (`[task.plugin.options]`).

    Attributes:
        labels: Names of the C outputs in order, as the study gives them.
        tokenizer: The base's.
        max_length: Longest text in tokens.
        pad_id: Token id of padding.

    Guarantees (yours to keep; `cloister.testing.check_task` and each site's proof try them):
        `record_losses(logits, batch)[i]` depends on row i of logits and target alone, is float32,
        and never raises for a target from 0 to C - 1 or for one that `target` returns. Otherwise a
        site's answer would depend on what a record contains.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int

    record_kind: ClassVar[RecordKind] = "text"
    primary_metric: ClassVar[str] = "loss"

    @staticmethod
    def labels_in(record: TextRecord) -> Sequence[str]:
        """Returns the labels that a record names; by default there is one."""
        return (record.label,)

    @abstractmethod
    def target(self, record: TextRecord) -> int:
        """Returns a record's target as one whole number, which `record_losses` receives.

        When it is called, every label that the record names has been checked to be in `labels`.
        """

    @abstractmethod
    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns a loss per row, float32 [B], from logits [B, C] and `batch.target`, int64 [B]."""

    def scores(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Returns scores by name, each [B], one for each record; reports show their means."""
        return {}

    def encode(self, record: Record) -> Example:
        """Tokenizes a text; see `Task.encode`."""
        assert isinstance(record, TextRecord)
        if not set(self.labels_in(record)) <= set(self.labels):
            raise MisfitError(UNKNOWN_LABEL, f"{UNKNOWN_LABEL}; name it in task.labels")
        text = cut_text(record.text, self.max_length)
        ids = self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
        return Example(tuple(ids) or (self.pad_id,), self.target(record))

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch."""
        return collate(examples, self.pad_id, shape)

    def meter(self) -> MeanMeter:
        """Returns a new meter of the mean loss and the means of `scores`."""
        return MeanMeter(self)


class MeanMeter:
    """Computes the means of a task's scores over all records."""

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, C]."""
        rows = {"loss": self._task.record_losses(logits, batch), **self._task.scores(logits, batch)}
        for name, values in rows.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.float().sum())
        self._count += len(batch.target)

    def result(self) -> dict[str, float]:
        """Returns the means, the task's primary metric first."""
        first = self._task.primary_metric
        names = sorted(self._sums, key=lambda name: name != first)
        return {name: self._sums[name] / max(self._count, 1) for name in names}

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Returns an empty report: there are no scores for single classes."""
        return {}
