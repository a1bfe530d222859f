"""The Gaussian mechanism: the only way from a clipped sum to a value that may leave a site.

Math:
    release = γ · (S + round(N(0, (σC)²) / γ)) for a sum S of integers. Rounding commutes with
    adding an integer, so this is round(S + noise): the continuous Gaussian mechanism (Dwork & Roth
    2014, appendix A), then rounded, which is post-processing. Every release is a multiple of γ
    whatever S is, so no bit of a float tells a zero sum from another (Mironov 2012; Haney et al.
    2022, arXiv:2207.13793).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.events import MOST_NOISE


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

    Raises:
        RefusedError: The noise is none that the grid can hold: below 0, NaN, or above `MOST_NOISE`.

    Guarantees:
        Noise is drawn in float64, rounded to the sum's grid and added to its integers; the result
        is then rounded to float32. An empty batch is noised like any other. With
        `noise_multiplier` 0 nothing is drawn and nothing is private. Nothing is claimed of the
        time that a draw takes: logarithm and sine are the machine's, and may branch on values.
    """
    if not 0 <= noise_multiplier <= MOST_NOISE:
        raise RefusedError(
            f"noise_multiplier {noise_multiplier}: from 0 to {MOST_NOISE:g} is what the integers "
            "of a release hold; nothing is released with another"
        )
    deviation = noise_multiplier * clipped.bound / clipped.grid
    noised = []
    for integers in clipped.tensors:
        total = integers
        if noise_multiplier > 0:
            steps = np.rint(entropy.normal(integers.numel()) * deviation).astype(np.int64)
            total = integers + torch.from_numpy(steps).view(integers.shape).to(integers.device)
        noised.append((total.to(torch.float64) * clipped.grid).to(torch.float32))
    return NoisedSum(tuple(noised))
