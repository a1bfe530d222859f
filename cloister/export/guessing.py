"""Compares an adapter's score with guessing, and warns where it is no better."""

from __future__ import annotations

import math

from cloister.models.pooling import Pooling
from cloister.tasks.config import TaskKind
from cloister.tasks.registry import BUILT_IN


def guessing(kind: TaskKind, majority: float | None) -> float | None:
    """Returns the score of guessing, which a useful adapter exceeds; None where it is not known.

    Args:
        kind: The task.
        majority: The score of one constant answer for every test record; None without labels.
    """
    # A plug-in does not state what its metric gives for guesses; retrieval's is compared with the
    # untrained base's.
    if kind not in BUILT_IN or kind == "retrieval":
        return None
    # Tags are scored by F1 of entities, which is 0 where none is found; scores by kappa or by
    # correlation, which is 0 where every record is given the same score.
    return 0.0 if kind in ("token-classification", "scoring") else majority


def guess_words(kind: TaskKind) -> str:
    """Describes, in words, what guessing means for a task."""
    return {
        "token-classification": "finding nothing",
        "scoring": "always giving one score",
        "multi-label-classification": "always giving the same labels",
        "recommendation": "always showing the ten most frequent next items",
    }.get(kind, "always guessing the most frequent label")


def is_no_better(score: float | None, majority: float | None) -> bool:
    """Returns whether a score is no higher than that of guessing, or is not a number.

    Args:
        score: The adapter's score; None: there is none.
        majority: The score of guessing; None: there is nothing to compare with.
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
    """Returns a warning for an adapter that scores no higher than guessing; None for others.

    Args:
        kind: The task.
        metric: Name of the score.
        score: The adapter's score.
        majority: The score of guessing, from `guessing`.
        pooling: How texts become vectors; None: nothing is pooled.
    """
    if not is_no_better(score, majority):
        return None
    text = (
        f"test {metric} {score:.4f} is not above {guess_words(kind)} "
        f"({majority:.4f}): the adapter has learnt nothing of use"
    )
    if pooling is not None:
        text += f"; texts were pooled by {pooling}: try another model.pooling"
    return (
        f"{text}; try a larger learning rate, more rounds, more records in a batch, or a larger ε"
    )
