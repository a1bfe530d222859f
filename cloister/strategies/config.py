"""The `[strategy]` section of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cloister.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How updates become the next global adapter.

    Attributes:
        name: The method.
        weights: One declared, public constant for each site, in order of the sites' names; empty:
            all alike. Never the private number of records.
    """

    name: Literal["fedavg"] = "fedavg"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(not 0 < weight < math.inf for weight in self.weights):
            raise UsageError("weights: positive numbers are needed")
