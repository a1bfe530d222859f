"""The only functions that turn the units' votes into a releasable histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum, within
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SharedNoise
from cloister.privacy.votes import BOUND


def release_votes(clipped: ClippedSum, plan: Plan, entropy: Entropy) -> NoisedSum:
    """Adds a round's noise to the count of every candidate, also of those without a vote.

    Args:
        clipped: The sum of the units' votes, each unit's clipped as a whole.
        plan: A plan of votes.
        entropy: The source of noise.

    Raises:
        RefusedError: The plan has no votes, or the sum is not one of its votes.
    """
    if plan.votes is None or clipped.bound != BOUND or clipped.tensors[0].shape != (plan.votes,):
        raise RefusedError(
            f"a sum clipped to {clipped.bound:g} was given; votes for {plan.votes} candidates, "
            f"clipped to {BOUND:g}, are needed"
        )
    return add_noise(clipped, plan.noise_multiplier, entropy)


def release_vote_share(
    clipped: ClippedSum, noise: SharedNoise, entropy: Entropy
) -> NDArray[np.int64]:
    """Adds this site's share of a round's noise to the count of every candidate.

    Args:
        clipped: The sum of the units' votes on the shared grid, each unit's clipped as a whole.
        noise: The plan's `shared_vote_noise`.
        entropy: The source of noise.

    Returns:
        Integers in steps of the shared grid [K]. Alone they have too little noise, so they leave a
        site only under a mask.

    Raises:
        RefusedError: Bound or grid are not the plan's.
    """
    if (clipped.bound, clipped.grid) != (noise.bound, noise.grid):
        raise RefusedError(
            f"votes clipped to {clipped.bound:g} on a grid of {clipped.grid} were given; the plan "
            f"says {noise.bound:g} and {noise.grid}"
        )
    # Cut before the noise is added, so that the sum over sites does not wrap modulo 2^bits.
    (fitting,) = within(clipped, noise.room).tensors
    exact: NDArray[np.int64] = fitting.cpu().numpy()
    return exact + discrete_gaussian(noise.share, len(exact), entropy)
