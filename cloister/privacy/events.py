"""Privacy loss as data: what was released, in the terms that an accountant needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GaussianEvent:
    """`steps` releases of a Poisson-subsampled Gaussian mechanism.

    The meaning of an event never changes, so that old ledgers stay true.

    Attributes:
        noise_multiplier: Noise standard deviation over the bound on one unit's contribution.
        sample_rate: Probability with which each unit is in a batch.
        steps: How often it was run.
        is_private: False where the randomness could be predicted (seeded): ε = ∞.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    is_private: bool = True
