"""Coordinate-wise trimmed mean (Yin et al. 2018, arXiv:1803.01498).

x ← x + the mean of each coordinate without its f largest and f smallest values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloister.adapter.tensors import Adapter, Array
from cloister.strategies.arithmetic import across_sites, enough, stepped
from cloister.strategies.method import Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class TrimmedMean:
    """Averages each coordinate without its outermost values.

    Attributes:
        byzantine: f, sites that may send anything.
    """

    byzantine: int

    @property
    def traits(self) -> Traits:
        """Needs individual updates."""
        fewest = 2 * self.byzantine + 1
        return Traits(is_linear=False, takes_weights=False, fewest=fewest, survives=self.byzantine)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the trimmed mean of each coordinate's deltas to the adapter."""
        enough(updates, self.traits.fewest)
        return stepped(state, across_sites(updates, self._trimmed))

    def _trimmed(self, stack: Array) -> Array:
        ordered = np.sort(stack, axis=0)[self.byzantine : len(stack) - self.byzantine]
        mean: Array = ordered.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


METHODS = (
    Method(
        name="trimmed-mean",
        fields=frozenset({"byzantine"}),
        make=lambda weights, options: TrimmedMean(options["byzantine"]),
    ),
)
