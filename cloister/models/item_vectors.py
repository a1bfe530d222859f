"""Vectors of public items, as the frozen base reads them, and what their mean and scale are for.

With c the mean vector of the items and h a person's, the network scores item j as
(W·(h − c) + b)·e_j, where e_j has the direction of the item's centred vector and the length τ / m,
m being the mean length of all centred vectors. W starts as the identity; so before training a score
is about τ times the cosine of person and item: what resembles the items at hand comes first, and
training changes that. Without c the part that all texts share would decide every product.

Guarantees:
    They follow from the base and the public file. They depend on no record, so they cost no
    privacy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloister.models.center import STEP
from cloister.models.network import Network
from cloister.tasks.recommendation import Recommendation

# τ: a temperature of 1/16 lies between those that sentence encoders are trained with (1/20) and a
# softmax that hardly tells items apart; a power of two, so that it rounds nothing.
SHARPNESS = 16.0
# Coordinates of an item's vector are multiples of it (see `models.center.STEP`): unit vectors of
# 384 coordinates have some of 1/20, of which rounding moves a hundredth.
FINE = 2.0**-11
# Items that the base reads at a time.
_BATCH = 64


@dataclass(frozen=True)
class ItemVectors:
    """What a network needs to score items.

    Attributes:
        vectors: e, float32 [C, H].
        center: c, float32 [H]; None: it is within the head already.
    """

    vectors: Tensor
    center: Tensor | None


def item_vectors(network: Network, task: Recommendation) -> ItemVectors:
    """Computes the vectors of all items.

    Args:
        network: With its adapters at their start, which changes nothing of the base.
        task: With its items.

    Returns:
        The vectors on the network's device, rounded so that machines that sum in another order
        nearly always get the same.
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
