"""The only function that turns the units' votes into a releasable histogram."""

from __future__ import annotations

from cloister.errors import RefusedError
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy
from cloister.privacy.noise import NoisedSum, add_noise
from cloister.privacy.plan import Plan
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
