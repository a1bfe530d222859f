"""The task of giving two texts one label, such as entailment, or whether an answer fits.

In a cross-encoder, the tokenizer writes both texts as one sequence, so every token of one text can
attend to the other, and a head reads the one vector of the sequence (Devlin et al. 2019,
arXiv:1810.04805, section 3). In a bi-encoder, each text is written by itself, the base reads both
in one row without letting either attend to the other (`models.apart`), and a head reads what is
computed from their two vectors. The loss of a pair depends on that pair alone. A loss that used the
other pairs of a batch as negatives would couple records, and clipping one record's gradient would
no longer bound that record's influence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.bounds import listed, shortened
from cloister.data.records import PairRecord, Record, RecordKind
from cloister.errors import MisfitError, UsageError
from cloister.tasks.collate import collate
from cloister.tasks.config import Comparison, TaskConfig, TaskKind
from cloister.tasks.cut import cut_text, most_characters
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.sequence import SequenceMeter
from cloister.tasks.task import UNKNOWN_LABEL, Batch, BatchShape, Example

TASK = {"kind": "text-pairs", "records": "pairs"}

# Written before the second text if the tokenizer puts nothing between two texts.
BREAK = "\n"
# Two one-word texts, to find out what a tokenizer puts around and between a pair.
_PROBE = "fever"


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> TextPairs:
    """Binds the task; see `build_task`."""
    if len(labels) < 2:
        raise UsageError(f"task.labels: {len(labels)} given or found; at least 2 are needed")
    if config.encoder == "bi":
        return _apart(config, labels, tokenizer, pad_id)
    task = TextPairs(labels, tokenizer, config.max_length, pad_id, separator(tokenizer))
    word = len(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    own = len(tokenizer(_PROBE, task.before + _PROBE)["input_ids"]) - 2 * word
    if config.max_length < own + 2:
        raise UsageError(
            f"task.max_length: {config.max_length} given; a pair takes {own} tokens of this base "
            f"beside its texts: set at least {own + 2}"
        )
    return task


def _apart(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> TextPairs:
    compare = config.compare or "vectors"
    word = len(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    own = len(tokenizer(_PROBE)["input_ids"]) - word
    if config.max_length < 2 * (own + 1):
        raise UsageError(
            f"task.max_length: {config.max_length} given; each text takes {own} tokens of this "
            f"base beside its own: set at least {2 * (own + 1)}"
        )
    return TextPairs(labels, tokenizer, config.max_length, pad_id, compare=compare)


def separator(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text to write before the second text: empty if the tokenizer separates them.

    BERT's tokenizer puts `[SEP]` between two texts. Most decoders' tokenizers put nothing, and the
    model could not tell where the first text ends.
    """
    mask = tokenizer(_PROBE, _PROBE, return_special_tokens_mask=True)["special_tokens_mask"]
    inner = "".join(map(str, mask)).strip("1")
    return "" if "1" in inner else BREAK


@dataclass(frozen=True)
class TextPairs:
    """The task of giving two texts, in their order, one of the study's labels.

    Attributes:
        labels: Class names in the order of the outputs.
        tokenizer: The base's.
        max_length: Longest pair in tokens. In a longer pair, the longer text is cut at its end
            until both are equally long; then both are cut. A bi-encoder gives each text half.
        pad_id: Token id of padding.
        before: Text that is written before the second text (`separator`).
        compare: For texts that are encoded separately: what the head reads of their vectors; None:
            they are read together.

    Guarantees:
        A pair's example and loss are functions of the pair alone. The tokens of a text that is
        encoded separately are a function of that text alone.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    before: str = ""
    compare: Comparison | None = None
    kind: TaskKind = "text-pairs"
    record_kind: RecordKind = "pairs"
    primary_metric: str = "accuracy"

    def encode(self, record: Record) -> Example:
        """Tokenizes a pair; see `Task.encode`."""
        assert isinstance(record, PairRecord)
        if record.label not in self.labels:
            raise MisfitError(
                UNKNOWN_LABEL,
                f"label {shortened(record.label)} is not among the study's {len(self.labels)} "
                f"({listed(self.labels)}); correct the file, or name it in task.labels",
            )
        label = self.labels.index(record.label)
        if self.compare is not None:
            one, other = (
                text_ids(self.tokenizer, text, self.max_length // 2, self.pad_id)
                for text in (record.text, record.text_b)
            )
            return Example(one + other, label, segments=(0,) * len(one) + (1,) * len(other))
        first, second = (cut_text(text, self.max_length) for text in (record.text, record.text_b))
        encoded: Mapping[str, Any] = self.tokenizer(
            first, self.before + second, truncation="longest_first", max_length=self.max_length
        )
        segments = encoded.get("token_type_ids", ())
        return Example(
            tuple(encoded["input_ids"]) or (self.pad_id,),
            label,
            segments=tuple(segments) if any(segments) else (),
        )

    def is_cut(self, first: str, second: str) -> bool:
        """Returns whether a pair is longer than `max_length`, so that its end is not read."""
        if self.compare is not None:
            half = self.max_length // 2
            return any(is_text_cut(self.tokenizer, text, half) for text in (first, second))
        if max(len(first), len(second)) > most_characters(self.max_length):
            return True
        whole = self.tokenizer(first, self.before + second, verbose=False)["input_ids"]
        return len(whole) > self.max_length

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads pairs into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each pair, [B]."""
        return F.cross_entropy(logits.float(), batch.target.to(logits.device), reduction="none")

    def meter(self) -> SequenceMeter:
        """Returns a new meter of accuracy, macro-F1 and loss."""
        return SequenceMeter(self)
