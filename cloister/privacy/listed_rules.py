"""Which releases may stand beside each other in a plan: votes, private evaluations, training."""

from __future__ import annotations

from cloister.errors import RefusedError
from cloister.privacy.evaluations import STATISTIC_BITS, Evaluations
from cloister.privacy.sharing import Sharing
from cloister.privacy.votes import BOUND, COUNT_BITS, check_candidates


def check_votes(
    candidates: int, sharing: Sharing | None, *, is_alone: bool, is_of_all: bool
) -> None:
    """Refuses a plan whose votes are not what the accountant charges.

    Args:
        candidates: Number of candidates.
        sharing: How the plan's noise is shared; None: it is not.
        is_alone: Whether the plan has independent noise, no training and no evaluations beside.
        is_of_all: Whether every unit votes once a round, and its votes have norm `BOUND`.

    Raises:
        RefusedError: They are mixed with other releases, sampled, or do not fit the masks' bits.
    """
    check_candidates(candidates)
    if not is_alone:
        raise RefusedError(
            "votes are possible with independent noise, and without training or evaluations beside "
            "them"
        )
    if sharing is not None and sharing.bits != COUNT_BITS:
        raise RefusedError(
            f"votes with shared noise need {COUNT_BITS} bits a value: with fewer, counts of units "
            "would be cut"
        )
    if not is_of_all:
        raise RefusedError(
            f"votes are of every unit, once a round, of norm {BOUND:g}: a sample rate or a bound "
            "below 1 is not possible; ask for a study that trains"
        )


def check_evaluations(
    evaluations: Evaluations, sharing: Sharing | None, *, is_independent: bool, num_rounds: int
) -> None:
    """Refuses a plan whose private evaluations cannot be listed beside its training.

    Args:
        evaluations: The evaluations.
        sharing: How the plan's noise is shared; None: it is not.
        is_independent: Whether there is noise, and that of each step is independent.
        num_rounds: The plan's rounds.

    Raises:
        RefusedError: The noise is correlated or absent, they come after the last round, or they do
            not fit the masks' bits.
    """
    if not is_independent:
        raise RefusedError(
            "private evaluations are possible beside training whose noise is independent"
        )
    if sharing is not None and sharing.bits != STATISTIC_BITS:
        raise RefusedError(
            f"private evaluations with shared noise need {STATISTIC_BITS} bits a value: with "
            "fewer, counts of units would be cut"
        )
    if evaluations.rounds[-1] > num_rounds:
        raise RefusedError(
            f"an evaluation after round {evaluations.rounds[-1]} was asked; the plan has "
            f"{num_rounds} rounds"
        )
