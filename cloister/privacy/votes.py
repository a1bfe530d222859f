"""The votes of a plan: in every round, each unit votes for the candidate texts nearest to it.

The candidates are public. A site releases a histogram over them: how many of its units voted for
each. Each unit has one vote, which a person splits evenly among the candidates of its records. So a
unit adds a vector of non-negative numbers whose sum is at most 1, and whose Euclidean norm is
therefore at most 1. Every cell gets discrete Gaussian noise. No batch is drawn, so the event of a
round is the Gaussian mechanism at rate 1 (Lin et al. 2024, arXiv:2305.15560, algorithm 2; Xie et
al. 2024, arXiv:2403.01749, for texts).

Where the sites share the noise, a site adds its share to its counts and sends them under a mask;
the plan's noise is that of the sum over the fewest honest sites (`cloister.privacy.shared_noise`).

A plan of votes lists nothing else: it has no training and no evaluation.
"""

from __future__ import annotations

import math

from cloister.errors import RefusedError
from cloister.privacy.shared_noise import SharedNoise, shared_noise
from cloister.privacy.sharing import Sharing

# Largest norm of what one unit adds to the histogram.
BOUND = 1.0
# With one candidate every vote is the same. With more than the largest number a round needs the
# vectors of as many texts at every site; published runs have at most 10,000 (Xie et al. 2024).
FEWEST, MOST = 2, 20_000
# Name of the tensor that leaves.
HISTOGRAM = "votes"
# Bits of a count in a sum with shared noise: with 16, a site's counts would be cut to a 64th of its
# units (`privacy.shared_noise.SIGNAL_ROOM`), and the votes for one text may be more.
COUNT_BITS = 32


def votes_shapes(candidates: int) -> dict[str, tuple[int, ...]]:
    """Returns name and shape of the tensor that leaves in a round of votes."""
    return {HISTOGRAM: (candidates,)}


def check_candidates(candidates: object) -> None:
    """Refuses a number of candidates that no plan can have.

    Raises:
        RefusedError: It is not a whole number in the range.
    """
    if type(candidates) is not int or not FEWEST <= candidates <= MOST:
        raise RefusedError(
            f"votes: {candidates!r} candidates given; a whole number from {FEWEST} to {MOST:,} is "
            "needed"
        )


def most_candidates(units: int, noise: float) -> int:
    """Returns the most candidates whose mean count is not below the noise of a count.

    Math:
        The sites' histograms add up to about `units` votes over K candidates. Each site adds its
        own noise, so a count over all sites has noise of standard deviation √(Σ σᵢ²). The mean
        count `units` / K must not be below that: with more candidates most counts say nothing.

    Args:
        units: Declared units of all sites together.
        noise: Standard deviation of the noise in a count over all sites.
    """
    return math.floor(units * BOUND / noise)


def shared_vote_noise(
    sharing: Sharing, *, noise_multiplier: float, public_records: int, candidates: int
) -> SharedNoise:
    """Returns each site's share of the noise of a count, under secure aggregation.

    Args:
        sharing: How the noise is shared.
        noise_multiplier: σ of a count in the sum over the fewest honest sites.
        public_records: A site's declared number of units; a sum has room for four times as many.
        candidates: Number of candidates.

    Raises:
        RefusedError: The noise does not fit its bits.
    """
    try:
        return shared_noise(
            sharing,
            bound=BOUND,
            noise_multiplier=noise_multiplier,
            expected_batch_size=public_records,
            values=candidates,
        )
    except RefusedError as error:
        raise RefusedError(
            f"votes: {sharing.sites} sites of {public_records:,} declared units and "
            f"{candidates:,} candidates leave no grid in {sharing.bits} bits that is fine enough; "
            'set fewer votes.candidates, or privacy.noise = "site"'
        ) from error
