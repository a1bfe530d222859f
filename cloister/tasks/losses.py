"""Losses of whole records. Shapes: B records, T tokens, C outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cloister.tasks.task import IGNORE


def token_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, 0 where nothing is learnt, [B, T].

    Args:
        logits: [B, T, C], of any floating type.
        target: int64 [B, T], `IGNORE` where no loss is taken.
    """
    flat = F.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return flat.view(target.shape)


def mean_within_record(losses: Tensor, target: Tensor) -> Tensor:
    """Mean of each record's own token losses, [B]; 0 for a record without any.

    Guarantees:
        Depends on the record's own tokens only. The mean over the batch's tokens, which
        transformers' `labels=` computes, would change with its companions.
    """
    count = (target != IGNORE).sum(dim=1)
    return losses.sum(dim=1) / count.clamp_min(1).to(torch.float32)
