"""The task of giving each word of a sentence one tag: entities in BIO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.bounds import listed
from cloister.data.records import Record, RecordKind, TokenRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.class_weights import as_tensor, weights_of
from cloister.tasks.collate import collate
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.cut import cut_words
from cloister.tasks.losses import mean_within_record, token_losses
from cloister.tasks.task import IGNORE, UNKNOWN_LABEL, Batch, BatchShape, Example
from cloister.tasks.words import check_offsets, encode_words, needs_fast

TASK = {"kind": "token-classification", "records": "tokens"}


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> TokenClassification:
    """Binds the task; see `build_task`."""
    needs_fast(config.kind, tokenizer)
    if not labels:
        raise UsageError(
            "task.labels: none given, and the public sets have no entity type; name the types in "
            "task.labels"
        )
    check_offsets(tokenizer)
    weights = weights_of(config.class_weights, labels)
    if weights is not None:  # B- and I- of each type weigh alike, and O weighs 1
        weights = (1.0, *(weight for weight in weights for _ in "BI"))
    return TokenClassification(bio_tags(labels), tokenizer, config.max_length, pad_id, weights)


Value = TypeVar("Value")


def bio_tags(types: Sequence[str]) -> tuple[str, ...]:
    """Outputs for entity types: O, then B- and I- of each."""
    return ("O", *(f"{place}-{kind}" for kind in types for place in "BI"))


def by_word(row: Sequence[Value], example: Example) -> dict[int, Value]:
    """The value of each word, by the word's place in the sentence.

    Args:
        row: One value per token of the padded example.
        example: The encoded sentence.

    Returns:
        The value of each word's first token. A word that was cut, or for which the tokenizer gives
        no token, is left out.
    """
    assert isinstance(example.target, tuple)
    values = [v for v, t in zip(row, example.target, strict=False) if t != IGNORE]
    return dict(zip(example.words, values, strict=True))


def word_tags(logits: Tensor, batch: Batch, labels: Sequence[str]) -> list[list[str]]:
    """Returns the predicted tag of every word of each sentence, from logits [B, T, C].

    Words that were cut, or for which the tokenizer gives no token, are tagged O.
    """
    every = []
    for row, example in zip(logits.argmax(dim=2).tolist(), batch.examples, strict=True):
        tags = ["O"] * len(example.reference)
        for word, output in by_word(row, example).items():
            tags[word] = labels[output]
        every.append(tags)
    return every


def spans_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities in a sentence's tags, as the scores count them: type, first word, last word + 1."""
    from seqeval.metrics.sequence_labeling import get_entities  # loads scikit-learn: half a second

    return [(kind, first, last + 1) for kind, first, last in get_entities(list(tags))]


@dataclass(frozen=True)
class TokenClassification:
    """Tags words; they are read as running text, and the first piece of a word carries its tag.

    Attributes:
        labels: Tags in the order of the outputs (`bio_tags`).
        tokenizer: The base's; a fast one.
        max_length: Longest sentence in tokens; words beyond it count as predicted O.
        pad_id: Token id of padding.
        weights: Weight of each tag's type, declared in public (`task.class_weights`); None: 1.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    weights: tuple[float, ...] | None = None
    kind: TaskKind = "token-classification"
    record_kind: RecordKind = "tokens"
    primary_metric: str = "f1"

    def encode(self, record: Record) -> Example:
        """Tokenizes a sentence; see `Task.encode`. Tags of words that are cut are not looked at."""
        assert isinstance(record, TokenRecord)
        kept = cut_words(record.tokens, self.max_length)
        unknown = sorted(set(record.tags[: len(kept)]) - set(self.labels))
        if unknown:
            raise MisfitError(
                UNKNOWN_LABEL,
                f"tag {listed(unknown[:1])} is not among the study's {len(self.labels)} "
                f"({listed(self.labels)}); correct the file, or name its type in task.labels",
            )
        ids, firsts = encode_words(self.tokenizer, kept, self.max_length)
        words = tuple(word for word in firsts if word is not None)
        target = tuple(
            IGNORE if word is None else self.labels.index(record.tags[word]) for word in firsts
        )
        return Example(tuple(ids) or (self.pad_id,), target or (IGNORE,), record.tags, words)

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads sentences into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy of each sentence's words, each times its tag's weight, [B]."""
        target = batch.target.to(logits.device)
        losses = token_losses(logits, target, as_tensor(self.weights))
        return mean_within_record(losses, target)

    def meter(self) -> TokenMeter:
        """Entity-level precision, recall and F1, and loss."""
        return TokenMeter(self)


@dataclass
class TokenMeter:
    """Collects tag sequences; scores entities as the CoNLL script does, through seqeval."""

    task: TokenClassification
    _predicted: list[list[str]] = field(default_factory=list)
    _true: list[list[str]] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, T, C]."""
        self._predicted += word_tags(logits, batch, self.task.labels)
        self._true += [list(example.reference) for example in batch.examples]
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Micro-averaged scores of whole entities, mean loss."""
        from seqeval.metrics import f1_score, precision_score, recall_score

        pair = (self._true, self._predicted)
        return {
            "precision": float(precision_score(*pair, zero_division=0)),
            "recall": float(recall_score(*pair, zero_division=0)),
            "f1": float(f1_score(*pair, zero_division=0)),
            "loss": self._loss / max(len(self._true), 1),
        }

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Precision, recall, F1 and support of each entity type."""
        if not any(tag != "O" for tags in (*self._true, *self._predicted) for tag in tags):
            return {}
        from seqeval.metrics import classification_report

        found = classification_report(
            self._true, self._predicted, output_dict=True, zero_division=0
        )
        return {
            kind: {name.replace("f1-score", "f1"): float(v) for name, v in scores.items()}
            for kind, scores in found.items()
            if not kind.endswith(" avg")
        }
