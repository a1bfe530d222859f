"""Sums for chat models, and for plug-ins whose scores are means over records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.tasks.chat import CausalChat
from cloister.tasks.guard import GuardedTask
from cloister.tasks.tally.tallies import COUNT, ratio
from cloister.tasks.task import IGNORE, Batch


@dataclass(frozen=True)
class TokenLossTally:
    """Perplexity over all assistant tokens, and mean loss over conversations.

    A record's values: 1; its loss; the sum of its tokens' losses; the number of these tokens.

    Attributes:
        task: The task.
    """

    task: CausalChat
    names: tuple[str, ...] = (COUNT, "loss", "token losses", "tokens")
    shares: frozenset[str] = frozenset()

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values from losses of next tokens [B, T - 1]."""
        losses = self.task.means(outputs, batch).double()
        tokens = (batch.target[:, 1:] != IGNORE).sum(dim=1).double()
        parts = [torch.ones(len(outputs)), losses.cpu(), outputs.double().sum(dim=1).cpu(), tokens]
        return np.stack([one.double().numpy() for one in parts], axis=1)

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns perplexity, infinite without tokens, and mean loss."""
        with np.errstate(over="ignore"):
            found = np.exp(ratio(sums[..., 2], sums[..., 3]))
        perplexity = np.where(sums[..., 3] == 0, np.inf, found)
        return {"perplexity": perplexity, "loss": sums[..., 1] / sums[..., 0]}

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns nothing: a chat has no classes."""
        return {}


class MeanTally:
    """The scores of a plug-in: its loss, and all others if they are means over records.

    Args:
        task: The plug-in's task.
    """

    shares: frozenset[str] = frozenset()

    def __init__(self, task: GuardedTask) -> None:
        self._task = task
        self._others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a record's values: 1, its loss, and the scores that its class gave."""
        return (COUNT, "loss", *self._others)

    def rows(self, outputs: Tensor, batch: Batch) -> np.ndarray:
        """Returns each record's values from logits [B, C]; see `TaskTally.rows`."""
        losses = self._task.record_losses(outputs, batch).double()
        scores = dict(self._task.record_scores(outputs, batch))
        scores.pop("loss", None)
        self._others = tuple(scores)
        parts = [torch.ones(len(losses)), losses, *scores.values()]
        return np.stack([one.double().numpy() for one in parts], axis=1)

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the means, the task's primary metric first."""
        found = {name: sums[..., n] / sums[..., 0] for n, name in enumerate(self.names) if n}
        first = self._task.primary_metric
        return {**({first: found[first]} if first in found else {}), **found}

    def by_class(self, sums: np.ndarray) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns nothing: a plug-in's classes are not known."""
        return {}
