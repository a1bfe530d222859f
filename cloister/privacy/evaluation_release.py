"""The only functions that turn held-out units' clipped statistics into a releasable value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum, within
from cloister.privacy.discrete_noise import discrete_gaussian
from cloister.privacy.entropy import Entropy
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.shared_noise import SharedNoise


def release_evaluation(
    clipped: ClippedSum, evaluations: Evaluations, entropy: Entropy
) -> NoisedSum:
    """Adds an evaluation's noise to every statistic, denominators included.

    Args:
        clipped: The sum of the units' vectors, each clipped as a whole.
        evaluations: The plan's.
        entropy: The source of noise.

    Raises:
        RefusedError: The sum's bound is not that of evaluations.
    """
    if clipped.bound != BOUND:
        raise RefusedError(f"statistics clipped to {clipped.bound} were given; {BOUND} is needed")
    return add_noise(clipped, evaluations.noise_multiplier, entropy)


def release_evaluation_share(
    clipped: ClippedSum, noise: SharedNoise, entropy: Entropy
) -> NDArray[np.int64]:
    """Adds this site's share of an evaluation's noise to every statistic, denominators included.

    Args:
        clipped: The sum of the units' vectors on the shared grid, each clipped as a whole.
        noise: The plan's `shared_evaluation_noise`.
        entropy: The source of noise.

    Returns:
        Integers in steps of the shared grid [statistics]. Alone they have too little noise, so they
        leave a site only under a mask.

    Raises:
        RefusedError: Bound or grid are not the plan's.
    """
    if (clipped.bound, clipped.grid) != (noise.bound, noise.grid):
        raise RefusedError(
            f"statistics clipped to {clipped.bound} on a grid of {clipped.grid} were given; the "
            f"plan says {noise.bound} and {noise.grid}"
        )
    # Cut before the noise is added, so that the sum over sites does not wrap modulo 2^bits.
    (fitting,) = within(clipped, noise.room).tensors
    exact: NDArray[np.int64] = fitting.cpu().numpy()
    return exact + discrete_gaussian(noise.share, len(exact), entropy)
