"""Krum and Multi-Krum (Blanchard et al. 2017, "Machine Learning with Adversaries", NeurIPS).

s_k = Σ ‖Δ_k − Δ_j‖² over the n − f − 2 sites j nearest to k
x ← x + mean of the m updates with the smallest s        m = 1: Krum
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import enough, stepped, weighted_mean
from cloister.strategies.method import Method
from cloister.strategies.nearest_updates import nearest
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class Krum:
    """Takes the updates that are nearest to their neighbours.

    Attributes:
        byzantine: f, sites that may send anything.
        selected: m, updates that are averaged.
    """

    byzantine: int
    selected: int = 1

    @property
    def traits(self) -> Traits:
        """Needs individual updates, and 2f + 3 of them (the paper's condition)."""
        fewest = max(2 * self.byzantine + 3, self.selected + self.byzantine + 2)
        return Traits(is_linear=False, takes_weights=False, fewest=fewest, survives=self.byzantine)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the mean of the updates that were selected; of equal scores, the first by name."""
        enough(updates, self.traits.fewest)
        near = len(updates) - self.byzantine - 2
        chosen = nearest(updates, near, self.selected)
        return stepped(state, weighted_mean({site: updates[site] for site in chosen}, {}))


METHODS = (
    Method(
        name="krum",
        fields=frozenset({"byzantine"}),
        make=lambda weights, options: Krum(options["byzantine"]),
    ),
    Method(
        name="multi-krum",
        fields=frozenset({"byzantine", "selected"}),
        make=lambda weights, options: Krum(options["byzantine"], options["selected"]),
    ),
)
