"""Withholds a prediction if its probability is below a threshold (the model abstains).

This is selective classification by the network's own confidence (Geifman and El-Yaniv 2017,
arXiv:1705.08500). Probabilities are not calibrated, so choose the threshold on public records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloister.errors import UsageError
from cloister.serving.predictions import (
    Classified,
    Labelled,
    Prediction,
    Retrieved,
    Tagged,
)
from cloister.tasks.config import TaskKind

# The value that is compared with the threshold, by task; other tasks give no probability.
HELD: Mapping[str, str] = {
    "sequence-classification": "the probability of the most probable label",
    "text-pairs": "the probability of the most probable label",
    "multi-label-classification": "each label's probability, in place of 0.5",
    "token-classification": "each entity's probability",
    "retrieval": "each passage's similarity",
}


@dataclass(frozen=True)
class Decided:
    """The label of a text, or the reason why none is given.

    Attributes:
        label: The most probable label; empty: its probability is below the threshold.
        confidence: The probability of the most probable label.
        reason: Why no label is given; empty if one is given.
        probabilities: By label; see `Classified`.
        is_cut: See `Classified`.
    """

    label: str
    confidence: float
    reason: str
    probabilities: Mapping[str, float]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the prediction as a JSON object."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "reason": self.reason,
            "probabilities": dict(self.probabilities),
            "is_cut": self.is_cut,
        }


def check_threshold(kind: TaskKind, threshold: float) -> None:
    """Refuses a threshold that is not a probability, and tasks whose predictions have none.

    Raises:
        UsageError: The threshold is not from 0 to 1, or the task gives no probability.
    """
    if not 0 <= threshold <= 1:  # also true for NaN, which passes typer's bounds
        raise UsageError(f"--threshold {threshold:g}: a number from 0 to 1 is needed")
    if kind not in HELD:
        raise UsageError(
            f"--threshold {threshold:g}: given for {kind}, whose predictions have no probability; "
            f"leave it out (it is for {', '.join(HELD)})"
        )


def abstaining(prediction: Prediction, threshold: float) -> Prediction | Decided:
    """Removes the answers of a prediction that are below a threshold.

    Args:
        prediction: A prediction of a task in `HELD`.
        threshold: From 0 to 1; answers equal to it or above stay.

    Returns:
        For one label, a `Decided`. For several labels, entities or passages, the prediction with
        those that reach the threshold.
    """
    if isinstance(prediction, Classified):
        confidence = prediction.probabilities[prediction.label]
        is_sure = confidence >= threshold
        return Decided(
            prediction.label if is_sure else "",
            confidence,
            "" if is_sure else f"below {threshold:g}",
            prediction.probabilities,
            prediction.is_cut,
        )
    if isinstance(prediction, Labelled):
        shares = prediction.probabilities.items()
        return replace(prediction, labels=tuple(n for n, share in shares if share >= threshold))
    if isinstance(prediction, Retrieved):
        near = tuple(one for one in prediction.passages if one.similarity >= threshold)
        return replace(prediction, passages=near)
    assert isinstance(prediction, Tagged)
    tags = list(prediction.tags)
    for entity in prediction.entities:
        if entity.probability < threshold:
            tags[entity.first_word : entity.end_word] = ["O"] * (
                entity.end_word - entity.first_word
            )
    kept = tuple(one for one in prediction.entities if one.probability >= threshold)
    return replace(prediction, entities=kept, tags=tuple(tags))
