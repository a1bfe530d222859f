"""The task of giving a whole text one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.bounds import listed, shortened
from cloister.data.records import Record, RecordKind, TextRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.calibration import expected_calibration_error
from cloister.tasks.class_weights import as_tensor, weights_of
from cloister.tasks.collate import collate
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.cut import most_characters
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.prompt import Prompt
from cloister.tasks.task import UNKNOWN_LABEL, Batch, BatchShape, Example, Task

TASK = {"kind": "sequence-classification", "records": "text"}


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> SequenceClassification:
    """Binds the task; see `build_task`."""
    if len(labels) < 2:
        raise UsageError(f"task.labels: {len(labels)} given or found; at least 2 are needed")
    prompt = None if config.prompt is None else Prompt.of(config.prompt)
    if prompt is not None:
        prompt.check(tokenizer, config.max_length)
    weights = weights_of(config.class_weights, labels)
    return SequenceClassification(labels, tokenizer, config.max_length, pad_id, prompt, weights)


@dataclass(frozen=True)
class SequenceClassification:
    """The task of giving each text one of the study's labels.

    Attributes:
        labels: Class names in the order of the outputs.
        tokenizer: The base's.
        max_length: Longest text in tokens.
        pad_id: Token id of padding.
        prompt: The text that is read around each record's text; None: nothing.
        weights: Weight of each label, declared in public (`task.class_weights`); None: 1.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    prompt: Prompt | None = None
    weights: tuple[float, ...] | None = None
    kind: TaskKind = "sequence-classification"
    record_kind: RecordKind = "text"
    primary_metric: str = "accuracy"

    def encode(self, record: Record) -> Example:
        """Tokenizes a text; see `Task.encode`."""
        assert isinstance(record, TextRecord)
        if record.label not in self.labels:
            raise MisfitError(
                UNKNOWN_LABEL,
                f"label {shortened(record.label)} is not among the study's {len(self.labels)} "
                f"({listed(self.labels)}); correct the file, or name it in task.labels",
            )
        return Example(self._tokens(record.text), self.labels.index(record.label))

    def _tokens(self, text: str) -> tuple[int, ...]:
        if self.prompt is not None:
            ids = self.prompt.encode(self.tokenizer, text, self.max_length)
            return tuple(ids) or (self.pad_id,)
        return text_ids(self.tokenizer, text, self.max_length, self.pad_id)

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than `max_length`, so that its end is not read."""
        if self.prompt is None:
            return is_text_cut(self.tokenizer, text, self.max_length)
        if len(text) > most_characters(self.max_length):
            return True
        whole = self.prompt.around(text)
        # verbose=False: without it the tokenizer warns of long texts, which are cut elsewhere.
        return len(self.tokenizer(whole, verbose=False)["input_ids"]) > self.max_length

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each text, times its label's weight, [B]."""
        weights = as_tensor(self.weights)
        return F.cross_entropy(
            logits.float(),
            batch.target.to(logits.device),
            weight=None if weights is None else weights.to(logits.device),
            reduction="none",
        )

    def meter(self) -> SequenceMeter:
        """Returns a new meter of accuracy, macro-F1, calibration and loss."""
        return SequenceMeter(self)


@dataclass
class SequenceMeter:
    """Collects predicted and true classes of a task with one label for each record."""

    task: Task
    _predicted: list[int] = field(default_factory=list)
    _true: list[int] = field(default_factory=list)
    _confidence: list[float] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, C]."""
        self._predicted += logits.argmax(dim=1).tolist()
        self._true += batch.target.tolist()
        self._confidence += logits.double().softmax(dim=1).amax(dim=1).tolist()
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Accuracy, macro-F1 over the classes that occur or were predicted, mean loss, and the
        calibration error of the softmax (`ece`)."""
        predicted, true = torch.tensor(self._predicted), torch.tensor(self._true)
        count = max(len(true), 1)
        occurring = sorted({*self._predicted, *self._true})
        f1 = self._scores(occurring)[2]
        return {
            "accuracy": float((predicted == true).sum()) / count,
            "macro_f1": float(sum(f1)) / max(len(f1), 1),
            "loss": self._loss / count,
            "ece": expected_calibration_error(self._confidence, (predicted == true).tolist()),
        }

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Precision, recall, F1 and support of each class."""
        columns = self._scores(list(range(len(self.task.labels))))
        names = ("precision", "recall", "f1", "support")
        return {
            label: dict(zip(names, map(float, row), strict=True))
            for label, row in zip(self.task.labels, zip(*columns, strict=True), strict=True)
        }

    def _scores(self, classes: list[int]) -> tuple[Sequence[float], ...]:
        # Loading it takes half a second, and pandas: a site's agent scores nothing.
        from sklearn.metrics import precision_recall_fscore_support

        scores: tuple[Sequence[float], ...] = precision_recall_fscore_support(
            self._true, self._predicted, labels=classes, zero_division=0.0
        )
        return scores
