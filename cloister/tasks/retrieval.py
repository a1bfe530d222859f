"""Which public passage answers a query: a bi-encoder whose query side is learnt.

A query and a passage are encoded apart and compared by the cosine of their vectors. The passages
are public and keep the vectors that the base gives them, and the encoder of queries is tuned, as
Lewis et al. 2020 do (arXiv:2005.11401, section 2.4): so an index of documents stays valid over
rounds and versions. The loss is a softmax over all passages,

    −log exp(cos(q, p⁺)/τ) / Σₚ exp(cos(q, p)/τ),

exact where sampled negatives estimate it. The passages are no records, so it is the record's own:
negatives from the batch (Karpukhin et al. 2020, arXiv:2004.04906, section 3.2) would couple
records, and no clip would bound what one of them adds.
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

# The places in a ranking within which a passage counts as found; 10 is usual (MS MARCO, BEIR:
# Thakur et al. 2021, arXiv:2104.08663).
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
        """Whether a text is longer than what is read of it."""
        return is_text_cut(self.tokenizer, text, self.max_length)

    def collate(self, examples: Sequence[Example], shape: BatchShape | None = None) -> Batch:
        """Pads texts into a batch."""
        return collate(examples, self.pad_id, shape)

    def record_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each query over all passages, [B].

        Args:
            logits: Cosines of queries and passages, [B, K].
            batch: Its target is the place of each query's passage.
        """
        scaled = logits.float() / self.temperature
        return F.cross_entropy(scaled, batch.target.to(logits.device), reduction="none")

    def meter(self) -> PassageMeter:
        """Returns a new meter of recall, reciprocal rank, discounted gain and loss."""
        return PassageMeter(self)


@dataclass
class PassageMeter:
    """Collects at which place of its ranking each query's passage stands."""

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
        """Scores of the ranking (`found_scores`), and the mean loss."""
        return {**found_scores(self._ranks), "loss": self._loss / max(len(self._ranks), 1)}

    def report(self) -> Mapping[str, Mapping[str, float]]:
        """Mean reciprocal rank and support of each passage that answers a query."""
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
    """Scores of rankings in which one passage each is right.

    Args:
        ranks: Where it stands, from 1; not empty.

    Returns:
        `mrr`, the mean of 1/rank (Voorhees 1999, TREC-8); `recall@1`, `@5`, `@10`, the share of
        queries whose passage is among so many; `ndcg@10` (`ranking.rank_scores`).
    """
    scores, found = rank_scores(ranks), np.asarray(ranks)
    return {
        "mrr": scores["mrr"],
        **{f"recall@{cut}": float((found <= cut).mean()) for cut in CUTS},
        f"ndcg@{SHOWN}": scores[f"ndcg@{SHOWN}"],
    }
