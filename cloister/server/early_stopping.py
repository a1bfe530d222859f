"""Stops a study when its score no longer improves, and selects the best round.

The scores are those on a public validation set, or estimates of private evaluations. Both are known
to the coordinator already, so stopping and selecting cost no ε; and no ε falls because of them: a
guarantee at the stated δ covers the list of releases that was fixed in advance, of which a study
that stops has shown a part. ε of that part alone would be no guarantee, as noisy releases decided
where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.privacy.estimated_scores import EvaluatedRound, SelectedBy, SelectedRound

# Metrics for which smaller is better.
LOWER_IS_BETTER = frozenset({"loss", "perplexity"})


def is_best(scores: Sequence[float], metric: str) -> bool:
    """Whether the last score is better than all earlier ones."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return all(sign * scores[-1] > sign * score for score in scores[:-1])


def should_stop(scores: Sequence[float], metric: str, patience: int) -> bool:
    """Whether none of the last `patience` scores is better than the best before them."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    if len(scores) <= patience:
        return False
    best_before = max(sign * score for score in scores[:-patience])
    return all(sign * score <= best_before for score in scores[-patience:])


def estimated(evaluations: Sequence[EvaluatedRound], metric: str) -> list[tuple[int, float]]:
    """Returns the estimates of a score with their rounds; one that the noise hides says nothing and
    is left out."""
    return [
        (one.round, value) for one in evaluations if (value := one.scores[metric].value) is not None
    ]


def selected_round(
    scores: Sequence[tuple[int, float]], metric: str, by: SelectedBy
) -> SelectedRound | None:
    """Returns the round of the best score, the first of equal ones; None: there is none.

    Args:
        scores: The scores by which the study stops, with their rounds, oldest first.
        metric: Their metric.
        by: Whose scores they are.
    """
    if not scores:
        return None
    sign = -1 if metric in LOWER_IS_BETTER else 1
    number, _ = max(scores, key=lambda one: sign * one[1])
    return SelectedRound(number, metric, len(scores), by)
