"""Turns a prediction into one text, to decide whether an edit of the input changes the answer."""

from __future__ import annotations

from cloister.serving.predictions import (
    Classified,
    Labelled,
    Prediction,
    Ranked,
    Replied,
    Retrieved,
    Scored,
    Tagged,
)
from cloister.tasks.score_scale import ScoreScale

# On a scale without grades, answers differ if they are in different tenths of its range.
TENTHS = 10


def answer_of(prediction: Prediction, scale: ScoreScale | None = None) -> str:
    """Returns a prediction's answer without its probabilities.

    Args:
        prediction: A prediction of any task.
        scale: The scale, for a score without grades.
    """
    if isinstance(prediction, Classified):
        return prediction.label
    if isinstance(prediction, Labelled):
        return ", ".join(prediction.labels) or "none"
    if isinstance(prediction, Scored):
        if prediction.grade is not None:
            return f"{prediction.grade:g}"
        assert scale is not None
        tenth = min(int(scale.share(prediction.score) * TENTHS), TENTHS - 1)
        return f"{scale.score(tenth / TENTHS):g} to {scale.score((tenth + 1) / TENTHS):g}"
    if isinstance(prediction, Retrieved):
        return prediction.passages[0].id
    if isinstance(prediction, Ranked):
        return " ".join(one.item for one in prediction.items)
    if isinstance(prediction, Tagged):
        return "; ".join(f"{one.type}: {one.text}" for one in prediction.entities) or "none"
    assert isinstance(prediction, Replied)
    return prediction.reply
