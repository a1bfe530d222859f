"""Numbers the sums of a study, so that no two of them have one mask or one signed set.

A mask, the seal of its shares and the signed set of sites are bound to a number that rises from sum
to sum. In a study with private evaluations two sums may belong to one round, the update's and the
evaluation's after it. With one number for both, their masks would be equal, and their difference
would show the update.
"""

from __future__ import annotations


def sum_number(number: int, *, evaluates: bool, has_evaluations: bool) -> int:
    """Returns the number of a round's sum.

    Args:
        number: The round, from 1.
        evaluates: Whether it is the sum of the evaluation after the round.
        has_evaluations: Whether the study has private evaluations; without them it is the round.
    """
    return 2 * number + evaluates if has_evaluations else number
