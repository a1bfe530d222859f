"""Computes the vectors of public items with the frozen base, centred and scaled.

Let c be the mean vector of the items and h a person's vector. The network scores item j as
(W·(h − c) + b)·e_j, where e_j has the direction of the item's centred vector and the length τ / m;
m is the mean length of all centred vectors. W starts as the identity, so before training a score is
about τ times the cosine of person and item: items similar to the person's own rank first. c is
subtracted because otherwise the part that all texts share would dominate every product.

Guarantees:
    The vectors depend only on the base and the public file. They depend on no record, so they cost
    no privacy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloister.models.center import STEP
from cloister.models.network import Network
from cloister.tasks.recommendation import Recommendation

# τ, the inverse temperature: near the 20 with which sentence encoders are trained; a much smaller
# one gives a softmax that hardly distinguishes items. A power of two, so that scaling is exact.
SHARPNESS = 16.0
# Coordinates of an item's vector are multiples of it (see `models.center.STEP`). Unit vectors with
# 384 coordinates have coordinates of about 1/20, which rounding changes by a hundredth.
FINE = 2.0**-11
# Items in a batch for the base.
_BATCH = 64


@dataclass(frozen=True)
class ItemVectors:
    """The public items' vectors and their mean, with which a network scores items.

    Attributes:
        vectors: e, float32 [C, H].
        center: c, float32 [H]; None: the head contains it already.
    """

    vectors: Tensor
    center: Tensor | None


def item_vectors(network: Network, task: Recommendation) -> ItemVectors:
    """Computes the vectors of all items.

    Args:
        network: The network with adapters at their initial values, which leave the base unchanged.
        task: The task, which has the items' texts.

    Returns:
        The vectors on the network's device. They are rounded, so that machines that sum in another
        order nearly always get the same vectors.
    """
    places = range(len(task.catalogue.ids))
    found = []
    with torch.no_grad():
        for first in range(0, len(places), _BATCH):
            group = [task.item_example(place) for place in places[first : first + _BATCH]]
            found.append(network.pooled(task.collate(group)).double())
    plain = torch.cat(found)
    center = torch.round(plain.mean(dim=0) / STEP) * STEP
    centred = plain - center
    lengths = centred.norm(dim=1, keepdim=True)
    unit = torch.round(centred / lengths.clamp_min(STEP) / FINE) * FINE
    # A power of two for the mean length, so that it is the same on every machine.
    scale = 2.0 ** round(float(torch.log2(lengths.mean().clamp_min(STEP))))
    return ItemVectors((unit * (SHARPNESS / scale)).float(), center.float())
