"""Adds noise that is correlated over steps: exact on the sum's integer grid.

Math:
    x_t is the step's clipped sum in grid steps, k the plan's integers (`privacy.bands`), z_t a
    vector of independent discrete Gaussians of variance (σ ‖k‖ C / γ)² + 4. The released step is

        y_t = x_t + n_t,    n_t = ⌊(z_t − Σ_(0<i<b) k_i n_(t−i)) / k_0 + ½⌋.

    So y_t = ⌊(w_t − Σ_(0<i<b) k_i y_(t−i)) / k_0 + ½⌋ with w_t = Σ_(i<b) k_i x_(t−i) + z_t, because
    k_0 x_t is a multiple of k_0: rounding down commutes with adding it. All y are a function of w
    alone, bit for bit, and w is a vector of integers with independent discrete Gaussian noise. So a
    release costs what w costs, and no rounding of floats enters.

    A unit is in steps whose number is its group modulo b only. A step of it moves w in b successive
    places by k_0 x, …, k_(b−1) x, of norm at most ‖k‖ C, with probability q b; its next step moves
    the next b places. Let P and Q be the releases of one place with and without the unit's step:
    given all other units and all earlier releases, the b places are a function of (k_i s x + z_i),
    i < b, where s is 1 with probability q b. So T steps are dominated by ⌈T/b⌉ compositions of the
    Gaussian mechanism of noise multiplier σ, subsampled at rate q b, also if each gradient follows
    from earlier releases (Choquette-Choo et al. 2023, arXiv:2306.08153), and also if
    other mechanisms are used in between: an adversary who had all b places at the first of them
    would know more. z is post-processing of continuous noise as in `privacy.noise`.

    A step that was charged and never released counts as one with x_t = 0: its noise is drawn, kept
    for later steps, and seen by nobody. So n keeps its law over all steps, whatever is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.bands import length
from cloister.privacy.clipping import ClippedSum, grid_of
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import NoisedSum
from cloister.privacy.shared_noise import SMOOTHING

Integers = NDArray[np.int64]
Marks = NDArray[np.uint64]


@dataclass
class RecentNoise:
    """The noise of the last b − 1 steps: whoever has it and the releases knows the exact sums.

    Attributes:
        step: Number of the next step, from 0: as many steps have noise.
        vectors: n of the last steps, the newest first, int64 [values] each; at most b − 1.
    """

    step: int = 0
    vectors: list[Integers] = field(default_factory=list)


@dataclass(frozen=True)
class BandedStep:
    """One step of a plan whose noise is correlated.

    Attributes:
        number: The step, from 0: as many of the plan's steps were charged before it.
        marks: Each unit's keyed hash, in the order of the units; modulo b it is the unit's group.
        recent: The noise of the steps before; it is changed in place to that after the step.
    """

    number: int
    marks: Marks
    recent: RecentNoise

    def members(self, bands: int) -> NDArray[np.bool_]:
        """Returns which units may be drawn, [units]."""
        found: NDArray[np.bool_] = self.marks % np.uint64(bands) == self.number % bands
        return found


def deviation_of(bands: tuple[int, ...], noise_multiplier: float, bound: float) -> float:
    """Returns the deviation of z, in grid steps of the bound's default grid."""
    continuous = noise_multiplier * length(bands) * bound / grid_of(bound)
    return math.sqrt(continuous**2 + SMOOTHING)


def next_noise(
    bands: tuple[int, ...], deviation: float, recent: RecentNoise, values: int, entropy: Entropy
) -> Integers:
    """Draws the next step's noise and moves the memory on by one step, int64 [values].

    Args:
        bands: k, the plan's integers.
        deviation: That of z, in grid steps.
        recent: The memory; vectors that fall out of use are overwritten with zeros.
        values: Number of values.
        entropy: Source of randomness.

    Raises:
        RefusedError: The memory is of another number of values, or of fewer steps than it says.
    """
    wanted = min(recent.step, len(bands) - 1)
    if len(recent.vectors) != wanted or any(len(n) != values for n in recent.vectors):
        raise RefusedError("the noise of earlier steps is not that of this plan's steps")
    noise = discrete_gaussian(deviation, values, entropy)
    for k, earlier in zip(bands[1:], recent.vectors, strict=False):
        noise -= k * earlier
    noise += bands[0] // 2
    noise //= bands[0]
    recent.vectors.insert(0, noise)
    while len(recent.vectors) > len(bands) - 1:
        recent.vectors.pop().fill(0)
    recent.step += 1
    return noise


def add_correlated_noise(
    clipped: ClippedSum,
    bands: tuple[int, ...],
    noise_multiplier: float,
    step: BandedStep,
    entropy: Entropy,
) -> NoisedSum:
    """Adds one step's correlated noise to a clipped sum.

    Args:
        clipped: The sum with its sensitivity.
        bands: k, the plan's integers.
        noise_multiplier: σ, from the plan.
        step: The step; its memory moves on to the next one.
        entropy: Source of randomness.

    Raises:
        RefusedError: The memory is ahead of the step, or not of this plan; or the sum is on another
            grid than its bound's default.

    Guarantees:
        The release is an integer multiple of the grid, and a function of w alone (see above). Steps
        between the memory's and this one, which nobody saw, get noise of their own first.
    """
    if clipped.grid != grid_of(clipped.bound):
        raise RefusedError("correlated noise needs a sum on its bound's default grid")
    if step.recent.step > step.number:
        raise RefusedError(
            f"the noise of earlier steps is of {step.recent.step} steps, and step {step.number} "
            "was asked: it is from another time; nothing is released"
        )
    deviation = deviation_of(bands, noise_multiplier, clipped.bound)
    values = sum(t.numel() for t in clipped.tensors)
    while step.recent.step < step.number:
        next_noise(bands, deviation, step.recent, values, entropy)
    flat = torch.cat([t.reshape(-1) for t in clipped.tensors]).cpu().numpy()
    total = flat + next_noise(bands, deviation, step.recent, values, entropy)
    released = torch.from_numpy((total * clipped.grid).astype(np.float32))
    pieces = torch.split(released, [t.numel() for t in clipped.tensors])
    pairs = zip(pieces, clipped.tensors, strict=True)
    return NoisedSum(tuple(piece.view(t.shape).to(t.device) for piece, t in pairs))
