"""Coordinate-wise median (Yin et al. 2018, arXiv:1803.01498).

x ← x + median_k Δ_k        of each coordinate; of an even number, the mean of the middle two
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import coordinate_medians, enough, stepped
from cloister.strategies.method import Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class Median:
    """Moves by each coordinate's median; fewer than half of the sites cannot control it."""

    @property
    def traits(self) -> Traits:
        """Needs individual updates."""
        return Traits(is_linear=False, takes_weights=False, fewest=3, survives=1)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the median of each coordinate's deltas to the adapter."""
        enough(updates, self.traits.fewest)
        return stepped(state, coordinate_medians(updates))


METHODS = (Method(name="median", make=lambda weights, options: Median()),)
