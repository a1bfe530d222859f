"""Compares the length of one step's noise with the longest gradient that the step can have."""

from __future__ import annotations

import math

from cloister.privacy.plan import Plan


def noise_over_signal(plan: Plan, parameters: int, sites: int) -> float:
    """Returns the length of one step's noise over the longest possible gradient of the step.

    The mean update of K sites carries noise of length σ·C·√d / (B·√K), and a gradient of at most C,
    reached if every record's gradient has the same direction and full length. If h honest sites
    share σ, each adds σ/√h, and the mean has less noise by that factor.

    Args:
        plan: A site's plan.
        parameters: d, the number of noised coordinates.
        sites: K, the number of averaged sites.

    Returns:
        σ·√d / (B·√K), or σ·√d / (B·√(K h)); above 1 the noise is longer than any gradient can be.
    """
    honest = plan.sharing.honest if plan.sharing is not None else 1
    signal = plan.expected_batch_size * math.sqrt(sites * honest)
    return plan.step_noise * math.sqrt(parameters) / signal
