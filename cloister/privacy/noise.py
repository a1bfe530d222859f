"""The Gaussian mechanism: the only function that turns a clipped sum into a releasable value.

Math:
    release = γ · (S + Z) for a sum S of integers, Z discrete Gaussians of variance (σC/γ)² + 4.
    Such noise is post-processing of the continuous Gaussian mechanism (Dwork & Roth 2014, appendix
    A) of variance (σC)², up to a factor exp(±10⁻³³) (Peikert 2010, as in `privacy.shared_noise`).
    Every release is a multiple of γ for any S, so no bit of a float distinguishes a zero sum from
    another (Mironov 2012; Haney et al. 2022, arXiv:2207.13793).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.shared_noise import SMOOTHING
from cloister.privacy.threads import each_block

# Number of values that are noised together: their temporaries, 25 bytes each, stay in a core's
# caches.
BLOCK = 2**17


@dataclass(frozen=True)
class NoisedSum:
    """A clipped sum with its noise; float32, one tensor for each trainable parameter."""

    tensors: tuple[Tensor, ...]


def add_noise(clipped: ClippedSum, noise_multiplier: float, entropy: Entropy) -> NoisedSum:
    """Adds N(0, (noise_multiplier · bound)²) to every coordinate, once for a logical batch.

    Args:
        clipped: The sum with its sensitivity, so that only clipped values can be noised.
        noise_multiplier: Noise standard deviation over the sensitivity, from the plan.
        entropy: Source of randomness.

    Raises:
        RefusedError: The grid cannot hold the noise: the multiplier is below 0, NaN, or above
            `MOST_NOISE`.

    Guarantees:
        Noise is drawn in integers on the sum's grid and added to its integers; the result is then
        rounded to float32. An empty batch is noised like any other. With `noise_multiplier` 0
        nothing is drawn and nothing is private. The time of a draw is not constant: one in a
        hundred values takes longer, depending on the drawn values. Besides the result, which is in
        the host's memory, each thread uses a few megabytes, for any number of values.
    """
    if not 0 <= noise_multiplier <= MOST_NOISE:
        raise RefusedError(
            f"noise_multiplier {noise_multiplier}: from 0 to {MOST_NOISE:g} is needed, which the "
            "integers of a release can hold; nothing is released"
        )
    continuous = noise_multiplier * clipped.bound / clipped.grid
    deviation = math.sqrt(continuous**2 + SMOOTHING) if noise_multiplier > 0 else 0.0
    released = [torch.empty(t.shape, dtype=torch.float32) for t in clipped.tensors]
    sums = [integers.reshape(-1) for integers in clipped.tensors]
    arrays = [values.view(-1).numpy() for values in released]

    def noise(block: tuple[int, int]) -> None:
        tensor, start = block
        total = sums[tensor][start : start + BLOCK].cpu().numpy()
        if deviation:
            total = np.add(steps := entropy.gaussian(deviation, len(total)), total, out=steps)
        arrays[tensor][start : start + BLOCK] = total * clipped.grid

    each_block(
        [(at, start) for at, flat in enumerate(sums) for start in range(0, len(flat), BLOCK)],
        noise,
        entropy,
    )
    pairs = zip(released, clipped.tensors, strict=True)
    return NoisedSum(tuple(values.to(integers.device) for values, integers in pairs))
