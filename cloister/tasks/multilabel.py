"""The task of giving a text any number of labels, including none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.bounds import listed
from cloister.data.records import LabelsRecord, Record, RecordKind
from cloister.errors import MisfitError, UsageError
from cloister.tasks.class_weights import as_tensor, weights_of
from cloister.tasks.collate import collate_wanted
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.losses import output_losses
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.task import UNKNOWN_LABEL, Batch, BatchShape, Example

TASK = {"kind": "multi-label-classification", "records": "labels"}

# A label is given if its probability is above this threshold, at which both kinds of error count
# the same. It is fixed for every label: a threshold tuned on records would be a release of them.
THRESHOLD = 0.5


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> MultiLabelClassification:
    """Binds the task; see `build_task`."""
    if not labels:
        raise UsageError("task.labels: none given or found; at least 1 is needed")
    weights = weights_of(config.class_weights, labels)
    return MultiLabelClassification(labels, tokenizer, config.max_length, pad_id, weights)


@dataclass(frozen=True)
class MultiLabelClassification:
    """The task of giving each text those of the study's labels that fit, each by itself.

    Attributes:
        labels: Names in the order of the outputs.
        tokenizer: The base's.
        max_length: Longest text in tokens.
        pad_id: Token id of padding.
        weights: Weight of each label, declared in public (`task.class_weights`); None: 1.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    weights: tuple[float, ...] | None = None
    kind: TaskKind = "multi-label-classification"
    record_kind: RecordKind = "labels"
    primary_metric: str = "micro_f1"

    def encode(self, record: Record) -> Example:
        """Tokenizes a text; see `Task.encode`."""
        assert isinstance(record, LabelsRecord)
        unknown = sorted(set(record.labels) - set(self.labels))
        if unknown:
            raise MisfitError(
                UNKNOWN_LABEL,
                f"label {listed(unknown[:1])} is not among the study's {len(self.labels)} "
                f"({listed(self.labels)}); correct the file, or name it in task.labels",
            )
        ids = text_ids(self.tokenizer, record.text, self.max_length, self.pad_id)
        return Example(ids, 0, wanted=tuple((self.labels.index(n), 1.0) for n in record.labels))

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than `max_length`, so that its end is not read."""
        return is_text_cut(self.tokenizer, text, self.max_length)

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch whose target is 1 at each label that a text has."""
        return collate_wanted(examples, len(self.labels), self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of each text, averaged over the labels, [B]."""
        return output_losses(logits, batch.target, as_tensor(self.weights))

    def meter(self) -> MultiLabelMeter:
        """Returns a new meter of F1, average precision, exact matches and loss."""
        return MultiLabelMeter(self)


@dataclass
class MultiLabelMeter:
    """Collects each text's probabilities of labels, and the labels that it has."""

    task: MultiLabelClassification
    _probabilities: list[list[float]] = field(default_factory=list)
    _true: list[list[float]] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, C]."""
        self._probabilities += logits.double().sigmoid().tolist()
        self._true += batch.target.tolist()
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Scores at a threshold of 0.5, mean average precision, mean loss.

        Returns:
            `micro_f1`: of all pairs of a text and a label. `macro_f1`: mean over the labels that
            occur or were given. `mean_ap`: mean average precision, over the labels that occur.
            `exact_match`: share of texts whose labels are all given, and no other. `loss`.
        """
        true, given = self._arrays()
        occurring = true.any(axis=0)
        used = occurring | given.any(axis=0)
        precisions = self._average_precisions()[occurring]
        both = float(2 * (true & given).sum())
        sizes = float(true.sum() + given.sum())
        f1 = self._scores(true, given)[2][used]
        return {
            "micro_f1": both / sizes if sizes else 0.0,
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "mean_ap": float(precisions.mean()) if len(precisions) else 0.0,
            "exact_match": float((true == given).all(axis=1).mean()) if len(true) else 0.0,
            "loss": self._loss / max(len(true), 1),
        }

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Precision, recall, F1, average precision and support of each label."""
        precision, recall, f1, support = self._scores(*self._arrays())
        names = ("precision", "recall", "f1", "average_precision", "support")
        columns = (precision, recall, f1, self._average_precisions(), support)
        return {
            label: dict(zip(names, map(float, row), strict=True))
            for label, row in zip(self.task.labels, zip(*columns, strict=True), strict=True)
        }

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the true and the predicted labels of each text, bool [N, C]."""
        shape = (-1, len(self.task.labels))
        true = np.asarray(self._true, dtype=float).reshape(shape) > 0
        return true, np.asarray(self._probabilities, dtype=float).reshape(shape) > THRESHOLD

    def _scores(self, true: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, ...]:
        """Precision, recall, F1 and support of each label, each [C]."""
        from sklearn.metrics import precision_recall_fscore_support  # late: as in `tasks.sequence`

        columns = list(range(len(self.task.labels)))
        pad = np.zeros((0 if len(true) else 1, len(columns)), dtype=bool)  # sklearn wants a row
        scores: tuple[np.ndarray, ...] = precision_recall_fscore_support(
            np.concatenate([true, pad]),
            np.concatenate([given, pad]),
            labels=columns,
            zero_division=0.0,
        )
        return scores

    def _average_precisions(self) -> np.ndarray:
        """Returns the average precision of each label, [C]; 0 if no text has it."""
        from sklearn.metrics import average_precision_score

        true, _ = self._arrays()
        probabilities = np.asarray(self._probabilities, dtype=float).reshape(true.shape)
        return np.array(
            [
                average_precision_score(true[:, label], probabilities[:, label])
                if true[:, label].any()
                else 0.0
                for label in range(true.shape[1])
            ]
        )
