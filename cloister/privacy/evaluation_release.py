"""The only function that turns held-out units' clipped statistics into a releasable value."""

from __future__ import annotations

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.evaluations import BOUND, Evaluations
from cloister.privacy.noise import NoisedSum, add_noise


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
