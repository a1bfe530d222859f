"""Losses of whole records. Shapes: B records, T tokens, C outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cloister.tasks.task import IGNORE


def token_losses(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the cross-entropy of each token in float32, [B, T]; 0 at tokens that are not learnt.

    Args:
        logits: [B, T, C], of any floating type.
        target: int64 [B, T]; `IGNORE` at tokens that are not learnt.
        weights: Factor of a token's loss, by its target, float32 [C]; None: 1.
    """
    flat = F.cross_entropy(
        logits.float().flatten(0, 1),
        target.flatten(),
        weight=None if weights is None else weights.to(logits.device),
        ignore_index=IGNORE,
        reduction="none",
    )
    return flat.view(target.shape)


def output_losses(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of each record's own outputs in float32, [B].

    −(1/C) Σ wᶜ·(yᶜ·log σ(zᶜ) + (1 − yᶜ)·log(1 − σ(zᶜ))), computed from z without a logarithm of 0.

    Args:
        logits: z, [B, C], of any floating type.
        target: y from 0 to 1, float32 [B, C].
        weights: w, float32 [C]; None: 1.

    Guarantees:
        Depends on the record's own row only.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), target.to(logits.device), reduction="none"
    )
    if weights is not None:
        losses = losses * weights.to(losses.device)
    return losses.mean(dim=1)


def mean_within_record(losses: Tensor, target: Tensor) -> Tensor:
    """Returns the mean of each record's own token losses, [B]; 0 for a record without any.

    Guarantees:
        Depends on the record's own tokens only. The mean over the batch's tokens, which
        transformers' `labels=` computes, would change with its companions.
    """
    count = (target != IGNORE).sum(dim=1)
    return losses.sum(dim=1) / count.clamp_min(1).to(torch.float32)
