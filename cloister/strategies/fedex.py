"""FedEx-LoRA: keeps the error of averaged factors as a residual beside them (Singhal et al. 2024,
arXiv:2410.09432).

    B ← B̄,  A ← Ā,  R ← R + Σ_k w_k B_k A_k − B̄ Ā

The paper adds R to the frozen base. Here it is a second pair of factors beside each adapter, of
rank `lora.residual`: it travels to the sites with the adapter, works on quantized bases and is
exported with the adapter. At the full rank of the adapted modules a round ends exactly at the mean
of the sites' models; at a lower rank the residual is the nearest of that rank, and
`aggregation_error` gives the distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import stepped, weighted_mean
from cloister.strategies.low_rank import mean_product, product_of, tensors_of, total
from cloister.strategies.method import WEIGHTS, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class FedEx:
    """Averages the factors and keeps the residual.

    Attributes:
        weights: By site; a site without one weighs 1.
    """

    weights: Mapping[str, float]

    @property
    def traits(self) -> Traits:
        """Needs individual updates: the mean of products is not a function of the means."""
        return Traits(
            is_linear=False,
            takes_weights=True,
            averages=True,
            trains=("both",),
            factors=True,
            keeps_residual=True,
        )

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1: a residual of zero."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the mean delta, and adds to the residual what the mean product still lacks."""
        moved = stepped(state, weighted_mean(updates, self.weights))
        adapter = moved.adapter
        for pair in find_pairs(next(iter(updates.values()))):
            products = [
                product_of(pair.residual, state.adapter),
                mean_product(pair, state.adapter, updates, self.weights),
                product_of(pair, adapter).scale(-1.0),
            ]
            rank = len(state.adapter[pair.residual.right])
            rest = tensors_of(pair.residual, total(products).truncated(rank))
            adapter = adapter.replace(rest)
        return replace(moved, adapter=adapter)


METHODS = (Method(name="fedex", fields=WEIGHTS, make=lambda weights, options: FedEx(weights)),)
