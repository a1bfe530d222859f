"""Ranks of the item that came next, and the scores that are made of them. Shapes: B records, C
items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# The usual length of a list that a person is shown in evaluations of next items (He et al. 2017,
# Neural Collaborative Filtering, arXiv:1708.05031, section 4.1).
SHOWN = 10


def without_seen(scores: Tensor, seen: Sequence[Sequence[int]]) -> Tensor:
    """Scores with −∞ at what each person has already.

    Args:
        scores: [B, C], or fewer `seen` than rows: further rows stay.
        seen: Items of each row.

    Guarantees:
        A row depends on its own scores and items alone.
    """
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for row, items in enumerate(seen):
        mask[row, list(items)] = True
    return scores.masked_fill(mask.to(scores.device), -torch.inf)


def ranks_of(scores: Tensor, target: Tensor) -> list[float]:
    """Rank of each row's target, from 1; of equal scores the mean rank, so that a model that says
    the same of all items gains nothing. A score that is no number ranks last.

    Args:
        scores: [B, C].
        target: int64 [B].
    """
    own = scores.gather(1, target[:, None])
    above, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    ranks = torch.where(own[:, 0].isnan(), scores.shape[1], 1 + above + (equal - 1) / 2)
    return ranks.tolist()


def rank_scores(ranks: Sequence[float], shown: int = SHOWN) -> dict[str, float]:
    """NDCG, hit rate and mean reciprocal rank of ranks.

    With one item that came next, NDCG@k of a person is 1/log₂(1 + rank) within the first k and 0
    beyond (Järvelin and Kekäläinen 2002, ACM TOIS 20, with one relevant item).

    Args:
        ranks: From 1; not empty.
        shown: k.
    """
    found = np.asarray(ranks, dtype=np.float64)
    hits = found <= shown
    return {
        f"ndcg@{shown}": float(np.where(hits, 1 / np.log2(1 + found), 0.0).mean()),
        f"hit@{shown}": float(hits.mean()),
        "mrr": float((1 / found).mean()),
    }
