"""Computes the rank of each person's next item, and scores from ranks.

Shapes: B records, C items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Length k of a recommended list: the usual value in the literature (He et al. 2017, Neural
# Collaborative Filtering, arXiv:1708.05031, section 4.1).
SHOWN = 10


def without_seen(scores: Tensor, seen: Sequence[Sequence[int]]) -> Tensor:
    """Returns scores with −∞ for the items that each person has already.

    Args:
        scores: [B, C].
        seen: The items of each row; rows after the last of these stay unchanged.

    Guarantees:
        A row depends on its own scores and items alone.
    """
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for row, items in enumerate(seen):
        mask[row, list(items)] = True
    return scores.masked_fill(mask.to(scores.device), -torch.inf)


def ranks_of(scores: Tensor, target: Tensor) -> list[float]:
    """Returns the rank of each row's target, from 1.

    Equal scores share their mean rank, so a model gains nothing by giving all items one score. A
    score of NaN ranks last.

    Args:
        scores: [B, C].
        target: int64 [B].
    """
    own = scores.gather(1, target[:, None])
    above, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    ranks = torch.where(own[:, 0].isnan(), scores.shape[1], 1 + above + (equal - 1) / 2)
    return ranks.tolist()


def rank_scores(ranks: Sequence[float], shown: int = SHOWN) -> dict[str, float]:
    """Returns NDCG@k, hit rate@k and mean reciprocal rank.

    Each person has one next item, so NDCG@k is 1/log₂(1 + rank) for a rank of at most k, otherwise
    0 (Järvelin and Kekäläinen 2002, ACM TOIS 20, with one relevant item).

    Args:
        ranks: Ranks of the next items, from 1; not empty.
        shown: k, the length of the list that a person is shown.
    """
    found = np.asarray(ranks, dtype=np.float64)
    hits = found <= shown
    return {
        f"ndcg@{shown}": float(np.where(hits, 1 / np.log2(1 + found), 0.0).mean()),
        f"hit@{shown}": float(hits.mean()),
        "mrr": float((1 / found).mean()),
    }
