"""Whether the pieces that a method names are those that the answer rests on.

Deletion blanks pieces from the most important to the least, insertion puts them back into a blank
input; each is the area under the curve of the answer's share, from 0 to 1 (Petsiuk et al. 2018,
arXiv:1806.07421). A faithful order has a small deletion and a large insertion. Compare it with
orders that are drawn at random for the same input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloister.trust.explain.reading import ModelReading

# Orders that are drawn: their mean has 0.4 of the spread of one. With `MOST_POINTS` it decides the
# time of a report: a sentence costs some 200 passes.
RANDOM_ORDERS = 6
# Most points of a curve, beside the whole input.
MOST_POINTS = 12


@dataclass(frozen=True)
class Faithfulness:
    """Areas of one order of an input's pieces, and of random orders, each in 0…1.

    Attributes:
        deletion: Small where the order is faithful.
        insertion: Large where it is.
        random_deletion: Mean over random orders.
        random_insertion: Likewise.
    """

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float

    @property
    def gain(self) -> float:
        """How much better than chance: the mean of both gains, above 0 where it is better."""
        fell = self.random_deletion - self.deletion
        rose = self.insertion - self.random_insertion
        return (fell + rose) / 2


@dataclass(frozen=True)
class Chance:
    """What random orders of one input's pieces have.

    Attributes:
        deletion: Mean area.
        insertion: Mean area.
    """

    deletion: float
    insertion: float


def by_chance(reading: ModelReading, rng: np.random.Generator) -> Chance:
    """Areas of random orders.

    Args:
        reading: What is explained.
        rng: Draws the orders.
    """
    orders = [rng.permutation(len(reading.pieces)) for _ in range(RANDOM_ORDERS)]
    areas = np.array([_areas(reading, order) for order in orders])
    deletion, insertion = areas.mean(axis=0)
    return Chance(float(deletion), float(insertion))


def faithfulness(reading: ModelReading, values: Tensor, chance: Chance) -> Faithfulness:
    """Areas of the order of some values, the largest first.

    Args:
        reading: What is explained.
        values: Of each piece, [P].
        chance: What random orders have.
    """
    order = torch.argsort(values, descending=True, stable=True).numpy()
    deletion, insertion = _areas(reading, order)
    return Faithfulness(deletion, insertion, chance.deletion, chance.insertion)


def _areas(reading: ModelReading, order: np.ndarray) -> tuple[float, float]:
    """Areas under deletion and insertion of an order of pieces."""
    count = len(order)
    points = np.unique(np.linspace(0, count, min(count, MOST_POINTS) + 1).round().astype(int))
    removed = torch.zeros(len(points), count, dtype=torch.bool)
    for row, most in enumerate(points):
        removed[row, torch.as_tensor(order[:most].copy())] = True
    shares = reading.share(reading.figures(torch.cat([~removed, removed]))).double().numpy()
    ways = points / count
    return area(ways, shares[: len(points)]), area(ways, shares[len(points) :])


def area(ways: Sequence[float] | np.ndarray, shares: Sequence[float] | np.ndarray) -> float:
    """Area under a curve of points by the trapezoid rule.

    Args:
        ways: From 0 to 1, ascending.
        shares: The curve at each.
    """
    return float(np.trapezoid(np.asarray(shares), np.asarray(ways)))
