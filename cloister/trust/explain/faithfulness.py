"""Measures whether a method's most important pieces really decide the answer.

Deletion blanks pieces one after another, the most important first; insertion puts them back into a
blank input in the same order. Each gives the area under the curve of the answer's share, from 0 to
1 (Petsiuk et al. 2018, arXiv:1806.07421). A faithful order has a small deletion and a large
insertion. Compare both with random orders for the same input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.trust.explain.reading import ModelReading

# Number of random orders: their mean has 0.4 times the spread of one. This and `MOST_POINTS` decide
# the time of a report: a sentence costs about 200 passes.
RANDOM_ORDERS = 6
# Most points of a curve, without the one for the whole input.
MOST_POINTS = 12


@dataclass(frozen=True)
class Faithfulness:
    """Areas of one order of an input's pieces, and of random orders, each in 0…1.

    Attributes:
        deletion: Area under the deletion curve; small for a faithful order.
        insertion: Area under the insertion curve; large for a faithful order.
        random_deletion: Mean deletion area of random orders.
        random_insertion: Mean insertion area of random orders.
    """

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float

    @property
    def gain(self) -> float:
        """Returns the mean of both gains over random orders; above 0 means better than chance."""
        fell = self.random_deletion - self.deletion
        rose = self.insertion - self.random_insertion
        return (fell + rose) / 2


@dataclass(frozen=True)
class Chance:
    """The mean areas of random orders of one input's pieces.

    Attributes:
        deletion: Mean deletion area.
        insertion: Mean insertion area.
    """

    deletion: float
    insertion: float


def by_chance(reading: ModelReading, rng: np.random.Generator) -> Chance:
    """Returns the mean areas of random orders.

    Args:
        reading: The input and figure that are explained.
        rng: The generator of the orders.
    """
    orders = [rng.permutation(len(reading.pieces)) for _ in range(RANDOM_ORDERS)]
    areas = np.array([_areas(reading, order) for order in orders])
    deletion, insertion = areas.mean(axis=0)
    return Chance(float(deletion), float(insertion))


def faithfulness(reading: ModelReading, values: Tensor, chance: Chance) -> Faithfulness:
    """Returns the areas of the order of some values, the largest first.

    Args:
        reading: The input and figure that are explained.
        values: The value of each piece, [P].
        chance: The areas of random orders of the same input.
    """
    order = torch.argsort(values, descending=True, stable=True).numpy()
    deletion, insertion = _areas(reading, order)
    return Faithfulness(deletion, insertion, chance.deletion, chance.insertion)


def _areas(reading: ModelReading, order: np.ndarray) -> tuple[float, float]:
    """Returns the deletion and the insertion area of an order of pieces."""
    count = len(order)
    points = np.unique(np.linspace(0, count, min(count, MOST_POINTS) + 1).round().astype(int))
    removed = torch.zeros(len(points), count, dtype=torch.bool)
    for row, most in enumerate(points):
        removed[row, torch.as_tensor(order[:most].copy())] = True
    shares = reading.share(reading.figures(torch.cat([~removed, removed]))).double().numpy()
    ways = points / count
    return area(ways, shares[: len(points)]), area(ways, shares[len(points) :])


def area(ways: Sequence[float] | np.ndarray, shares: Sequence[float] | np.ndarray) -> float:
    """Returns the area under a curve of points, by the trapezoid rule.

    Args:
        ways: The points' places, from 0 to 1, ascending.
        shares: The curve's height at each place.
    """
    return float(np.trapezoid(np.asarray(shares), np.asarray(ways)))
