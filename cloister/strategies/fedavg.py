"""FedAvg over adapter deltas (McMahan et al. 2017, arXiv:1602.05629; on LoRA: FedIT, Zhang et al.
2024, arXiv:2305.05644).

    x ← x + Σ_k w_k Δ_k / Σ_k w_k        over the sites k that answered

The weights are declared constants: the number of records, the usual weight, is private, and a
weight that follows it makes one record's influence depend on all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import stepped, weighted_mean
from cloister.strategies.method import WEIGHTS, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class FedAvg:
    """Weighted mean of deltas.

    Attributes:
        weights: By site; a site without one weighs 1.
    """

    weights: Mapping[str, float]

    @property
    def traits(self) -> Traits:
        """Linear: the strategy needs only the mean."""
        return Traits(is_linear=True, takes_weights=True, averages=True)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the weighted mean of the sites' deltas to the adapter."""
        return self.step(state, weighted_mean(updates, self.weights))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Returns the state after adding the mean of the updates."""
        return stepped(state, mean)


METHODS = (Method(name="fedavg", fields=WEIGHTS, make=lambda weights, options: FedAvg(weights)),)
