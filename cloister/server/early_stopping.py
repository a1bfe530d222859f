"""Stops a study when the score on a public validation set no longer improves."""

from __future__ import annotations

from collections.abc import Sequence

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
