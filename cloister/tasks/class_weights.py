"""Weights of classes, declared in public: how much a record counts whose class is rare.

Guarantees:
    They are part of the recipe, which every site reads before it looks at a record, and never
    follow from private counts: those would be a release that nobody charged. A weight multiplies a
    record's loss and so its gradient, before that gradient is clipped. The clip bounds what a unit
    adds whatever its gradient is, so sensitivity, noise and ε are those of the study without
    weights. What a large weight does is to turn more of the clipped length to rare classes; beyond
    the clip it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cloister.bounds import listed
from cloister.errors import UsageError

ClassWeights = tuple[tuple[str, float], ...]


def weights_of(given: ClassWeights | None, labels: Sequence[str]) -> tuple[float, ...] | None:
    """The weight of each label in order, 1 for one that is not named; None where none is.

    Args:
        given: `task.class_weights`.
        labels: The study's, in the order of its outputs.

    Raises:
        UsageError: A weight is named for what is no label of the study.
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
    """Weights as float32 [C]; None where there are none."""
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)
