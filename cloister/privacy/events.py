"""A release as data, with the parameters that an accountant needs."""

from __future__ import annotations

from dataclasses import dataclass

# The largest noise multiplier that the mechanism takes. A bound is at most 2³¹ grid steps, so noise
# of 13 deviations beside a sum of 2²² contributions stays a thousand times below where int64 ends.
MOST_NOISE = 1e4


@dataclass(frozen=True, kw_only=True)
class GaussianEvent:
    """`steps` releases of a Poisson-subsampled Gaussian mechanism.

    The meaning of an event never changes, so that old ledgers stay true.

    Attributes:
        noise_multiplier: Noise standard deviation over the bound on one unit's contribution.
        sample_rate: Probability with which each unit is in a batch.
        steps: Number of releases.
        is_private: Whether the randomness is unpredictable; with a seed it is not, and ε = ∞.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    is_private: bool = True
