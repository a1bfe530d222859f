"""Sums for tasks that rank: where the right passage, or a person's next item, was placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cloister.tasks.ranking import SHOWN, ranks_of, without_seen
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import CUTS, Retrieval
from cloister.tasks.tally.tallies import COUNT
from cloister.tasks.task import Batch


@dataclass(frozen=True)
class RankTally:
    """Hits among the first places, mean reciprocal rank, discounted gain and loss.

    A record's values: 1; 1/rank; 1/log₂(1 + rank) among the first `SHOWN`; a hit or not for each
    cut; its loss.

    Attributes:
        task: The task.
    """

    task: Retrieval | Recommendation

    @property
    def cuts(self) -> dict[str, int]:
        """The cuts by the name of their score."""
        if isinstance(self.task, Retrieval):
            return {f"recall@{cut}": cut for cut in CUTS}
        return {f"hit@{SHOWN}": SHOWN}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a record's values."""
        return (COUNT, "mrr", f"ndcg@{SHOWN}", *self.cuts, "loss")

    @property
    def shares(self) -> frozenset[str]:
        """The hits."""
        return frozenset(self.cuts)

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values from logits [B, C]; see `TaskTally.rows`."""
        scores = outputs
        if isinstance(self.task, Recommendation):
            scores = without_seen(outputs.double(), [one.seen for one in batch.examples])
        ranks = np.asarray(ranks_of(scores, batch.target))
        gain = np.where(ranks <= SHOWN, 1 / np.log2(1 + ranks), 0.0)
        hits = [ranks <= cut for cut in self.cuts.values()]
        losses = self.task.record_losses(outputs, batch).double().numpy()
        return np.stack([np.ones(len(ranks)), 1 / ranks, gain, *hits, losses], axis=1)

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the means, under the meter's names."""
        found = {name: sums[..., n] / sums[..., 0] for n, name in enumerate(self.names)}
        first = self.task.primary_metric
        return {first: found[first], **{name: found[name] for name in self.names[1:]}}

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns nothing: most passages and items have too few records."""
        return {}
