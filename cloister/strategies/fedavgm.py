"""FedAvg with server momentum (Hsu, Qi, Brown 2019, arXiv:1909.06335).

m ← β m + Δ̄,  x ← x + η m        Δ̄ the weighted mean delta
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import stepped, weighted_mean
from cloister.strategies.method import SERVER, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class FedAvgM:
    """Momentum over mean deltas.

    Attributes:
        weights: By site; a site without one weighs 1.
        learning_rate: η, of the server.
        momentum: β.
    """

    weights: Mapping[str, float]
    learning_rate: float
    momentum: float

    @property
    def traits(self) -> Traits:
        """Linear in the updates of each round."""
        return Traits(is_linear=True, takes_weights=True)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1: no momentum."""
        return ServerState(adapter, memory={"momentum": adapter.zeros()})

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Moves by the momentum of the mean delta."""
        return self.step(state, weighted_mean(updates, self.weights))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Moves by the momentum; that of tensors that did not travel stays as it was."""
        before = state.memory["momentum"]
        now = before.select(mean).scale(self.momentum) + mean
        return stepped(state, now.scale(self.learning_rate), {"momentum": before.replace(now)})


METHODS = (
    Method(
        name="fedavgm",
        fields=SERVER,
        # It steps by the mean itself (the paper); see `Strategy` on a default rate of 1.
        defaults={"learning_rate": 1.0},
        make=lambda weights, options: FedAvgM(
            weights, options["learning_rate"], options["momentum"]
        ),
    ),
)
