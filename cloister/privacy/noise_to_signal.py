"""How long one step's noise is, compared with the longest gradient that the step can have."""

from __future__ import annotations

import math

from cloister.privacy.plan import Plan


def noise_over_signal(plan: Plan, parameters: int, sites: int) -> float:
    """Returns the length of one step's noise over the longest gradient that the step could see.

    The mean update of K sites carries noise of length σ·C·√d / (B·√K), and a gradient of at most C,
    reached where every record of the batch pulls the same way at full length. Where h honest sites
    share σ among them, each adds σ/√h, and so much less is in the mean.

    Args:
        plan: A site's.
        parameters: d, coordinates that are noised.
        sites: K, sites that are averaged.

    Returns:
        σ·√d / (B·√K), or σ·√d / (B·√(K h)); above 1 the noise is longer than any gradient can be.
    """
    honest = plan.sharing.honest if plan.sharing is not None else 1
    signal = plan.expected_batch_size * math.sqrt(sites * honest)
    return plan.noise_multiplier * math.sqrt(parameters) / signal
