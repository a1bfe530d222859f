"""Finds the public passage that answers a query: a bi-encoder whose query side is trained.

Queries and passages are encoded separately and compared by the cosine of their vectors. Passages
are public and keep the vectors that the frozen base gives them; only the encoder of queries is
trained, as in Lewis et al. 2020 (arXiv:2005.11401, section 2.4). So an index of documents stays
valid over rounds and versions. The loss is a softmax over all passages,

    −log exp(cos(q, p⁺)/τ) / Σₚ exp(cos(q, p)/τ),

computed exactly and not estimated from sampled negatives. Passages are not records, so the loss
depends on one record only. Negatives from the batch (Karpukhin et al. 2020, arXiv:2004.04906,
section 3.2) would couple records, and clipping would no longer bound one record's influence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cloister.bounds import listed, shortened
from cloister.data.records import Record, RecordKind, TextRecord
from cloister.errors import MisfitError, UsageError
from cloister.tasks.collate import collate
from cloister.tasks.config import TEMPERATURE, TaskConfig, TaskKind
from cloister.tasks.one_text import is_text_cut, text_ids
from cloister.tasks.ranking import SHOWN, rank_scores, ranks_of
from cloister.tasks.task import UNKNOWN_LABEL, Batch, BatchShape, Example

TASK = {"kind": "retrieval", "records": "text", "usual": False}

# Cut-offs k of the scores: a passage is found if its rank is at most k. 10 is usual (MS MARCO,
# BEIR: Thakur et al. 2021, arXiv:2104.08663).
CUTS = (1, 5, SHOWN)


def make(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> Retrieval:
    """Binds the task; see `build_task`. Its labels are the ids of the passages."""
    if config.passages is None:
        raise UsageError("task.passages: none given; retrieval needs public passages by id")
    passages = dict(config.passages)
    return Retrieval(
        config.labels,
        tokenizer,
        config.max_length,
        pad_id,
        tuple(passages[name] for name in config.labels),
        config.temperature or TEMPERATURE,
    )


@dataclass(frozen=True)
class Retrieval:
    """The task of finding the passage that answers a query.

    Attributes:
        labels: Ids of the K passages, in the order of the outputs.
        tokenizer: The base's.
        max_length: Longest query and longest passage in tokens.
        pad_id: Token id of padding.
        passages: The passages' texts, in the order of their ids.
        temperature: τ.

    Guarantees:
        A query's example and loss are functions of the query and the public passages alone.
    """

    labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    pad_id: int
    passages: tuple[str, ...]
    temperature: float = TEMPERATURE
    kind: TaskKind = "retrieval"
    record_kind: RecordKind = "text"
    primary_metric: str = "mrr"

    def encode(self, record: Record) -> Example:
        """Tokenizes a query; its label is the id of the passage that answers it."""
        assert isinstance(record, TextRecord)
        if record.label not in self.labels:
            raise MisfitError(
                UNKNOWN_LABEL,
                f"passage {shortened(record.label)} is not among the study's {len(self.labels)} "
                f"({listed(self.labels)}); correct the file, or add it to task.passages",
            )
        ids = text_ids(self.tokenizer, record.text, self.max_length, self.pad_id)
        return Example(ids, self.labels.index(record.label))

    def encode_passage(self, text: str) -> Example:
        """Tokenizes a passage, of the study or of any document."""
        return Example(text_ids(self.tokenizer, text, self.max_length, self.pad_id), 0)

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than `max_length`, so that its end is not read."""
        return is_text_cut(self.tokenizer, text, self.max_length)

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the cross-entropy of each query over all passages, [B].

        Args:
            logits: Cosines of queries and passages, [B, K].
            batch: Its target is the index of each query's passage.
        """
        scaled = logits.float() / self.temperature
        return F.cross_entropy(scaled, batch.target.to(logits.device), reduction="none")

    def meter(self) -> PassageMeter:
        """Returns a new meter of recall, reciprocal rank, discounted gain and loss."""
        return PassageMeter(self)


@dataclass
class PassageMeter:
    """Collects the rank of the right passage of each query."""

    task: Retrieval
    _ranks: list[float] = field(default_factory=list)
    _true: list[int] = field(default_factory=list)
    _loss: float = 0.0

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Takes one batch, logits [B, K]."""
        self._ranks += ranks_of(logits, batch.target)
        self._true += batch.target.tolist()
        self._loss += float(self.task.record_losses(logits, batch).sum())

    def result(self) -> dict[str, float]:
        """Returns the scores of the rankings (`found_scores`), and the mean loss."""
        return {**found_scores(self._ranks), "loss": self._loss / max(len(self._ranks), 1)}

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Returns mean reciprocal rank and support of each passage that answers a query."""
        by_passage: dict[int, list[float]] = defaultdict(list)
        for true, rank in zip(self._true, self._ranks, strict=True):
            by_passage[true].append(rank)
        return {
            self.task.labels[place]: {
                "mrr": rank_scores(ranks)["mrr"],
                "support": float(len(ranks)),
            }
            for place, ranks in sorted(by_passage.items())
        }


def found_scores(ranks: Sequence[float]) -> dict[str, float]:
    """Returns the scores of rankings that each have one right passage.

    Args:
        ranks: Ranks of the right passages, from 1; not empty.

    Returns:
        `mrr`, the mean of 1/rank (Voorhees 1999, TREC-8); `recall@1`, `@5`, `@10`, the share of
        queries whose right passage has at most this rank; `ndcg@10` (`ranking.rank_scores`).
    """
    scores, found = rank_scores(ranks), np.asarray(ranks)
    return {
        "mrr": scores["mrr"],
        **{f"recall@{cut}": float((found <= cut).mean()) for cut in CUTS},
        f"ndcg@{SHOWN}": scores[f"ndcg@{SHOWN}"],
    }
