"""Weights of classes, declared in the recipe, so that rare classes count more.

Guarantees:
    Weights are part of the recipe, which every site reads before it looks at a record. They never
    come from private counts, which would be an uncharged release. A weight multiplies a record's
    loss, and so its gradient, before that gradient is clipped. The clip bounds a unit's
    contribution whatever its gradient is, so sensitivity, noise and ε do not change. A large
    weight gives rare classes a larger part of the clipped gradients; a gradient that is clipped
    already does not grow further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cloister.bounds import listed
from cloister.errors import UsageError

ClassWeights = tuple[tuple[str, float], ...]


def weights_of(given: ClassWeights | None, labels: Sequence[str]) -> tuple[float, ...] | None:
    """Returns the weight of each label in order, 1 if it is not named; None if none is named.

    Args:
        given: `task.class_weights`.
        labels: The study's labels, in the order of its outputs.

    Raises:
        UsageError: A weight names something that is not a label of the study.
    """
    if not given:
        return None
    named: Mapping[str, float] = dict(given)
    unknown = sorted(named.keys() - set(labels))
    if unknown:
        raise UsageError(
            f"task.class_weights: {listed(unknown)} given; the study's labels are {listed(labels)}"
        )
    return tuple(named.get(label, 1.0) for label in labels)


def as_tensor(weights: tuple[float, ...] | None) -> Tensor | None:
    """Returns weights as float32 [C]; None if there are none."""
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)
