"""The comparison of an adapter's score with guessing, and the warning where it is no better."""

from __future__ import annotations

import math

from cloister.models.pooling import Pooling
from cloister.tasks.config import TaskKind
from cloister.tasks.registry import BUILT_IN


def guessing(kind: TaskKind, majority: float | None) -> float | None:
    """Returns the score of guessing, which an adapter must exceed; None where it has none.

    Args:
        kind: The task.
        majority: What saying the same of every test record reaches; None where there are no labels.
    """
    # What a plug-in's metric is for guesses, only it could say; rankings are compared with those
    # of the untrained base.
    if kind not in BUILT_IN or kind == "retrieval":
        return None
    # Tags are scored by F1 of entities, which is 0 for whoever finds none; scores by kappa or by
    # correlation, which are 0 for whoever gives one score to all.
    return 0.0 if kind in ("token-classification", "scoring") else majority


def guess_words(kind: TaskKind) -> str:
    """What guessing is, in words."""
    return {
        "token-classification": "finding nothing",
        "scoring": "always giving one score",
        "multi-label-classification": "always giving the same labels",
    }.get(kind, "always guessing the most frequent label")


def is_no_better(score: float | None, majority: float | None) -> bool:
    """Whether guessing reaches a score too, or the score is not a number.

    Args:
        score: Of the adapter; None: there is none.
        majority: What guessing the most frequent label reaches; None: nothing to compare with.
    """
    if score is None or majority is None:
        return False
    return math.isnan(score) or score <= majority


def guess_warning(
    kind: TaskKind,
    metric: str,
    score: float | None,
    majority: float | None,
    pooling: Pooling | None,
) -> str | None:
    """Returns a warning for an adapter that scores no more than guessing; None for others.

    Args:
        kind: The task.
        metric: What was scored.
        score: Of the adapter.
        majority: What guessing reaches (`guessing`).
        pooling: How texts become vectors; None where they do not.
    """
    if not is_no_better(score, majority):
        return None
    told = (
        f"test {metric} {score:.4f} is not above {guess_words(kind)} "
        f"({majority:.4f}): the adapter has learnt nothing of use"
    )
    if pooling is not None:
        told += f"; texts were pooled by {pooling}: try another model.pooling"
    return (
        f"{told}; or a learning rate that moves it, more rounds, more records a batch, a larger ε"
    )
