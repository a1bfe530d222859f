"""The Gaussian mechanism: the only way from a clipped sum to a value that may leave a site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy


@dataclass(frozen=True)
class NoisedSum:
    """A clipped sum with its noise; float32, one tensor for each trainable parameter."""

    tensors: tuple[Tensor, ...]


def add_noise(clipped: ClippedSum, noise_multiplier: float, entropy: Entropy) -> NoisedSum:
    """Adds N(0, (noise_multiplier · bound)²) to every coordinate, once for a logical batch.

    Args:
        clipped: The sum, carrying its sensitivity: nothing un-clipped can be noised.
        noise_multiplier: Noise standard deviation over the sensitivity, from the plan.
        entropy: Source of randomness.

    Guarantees:
        The noise is drawn and added in float64, then rounded to float32. An empty batch is noised
        like any other. With `noise_multiplier` 0 nothing is drawn and nothing is private.
    """
    if noise_multiplier == 0:
        return NoisedSum(clipped.tensors)
    deviation = noise_multiplier * clipped.bound
    noised = []
    for tensor in clipped.tensors:
        noise = torch.from_numpy(entropy.normal(tensor.numel())).view(tensor.shape)
        total = tensor.to(device="cpu", dtype=torch.float64) + deviation * noise
        noised.append(total.to(device=tensor.device, dtype=torch.float32))
    return NoisedSum(tuple(noised))
