"""FlexLoRA: sites train adapters of different ranks; products are averaged and cut again (Bai et
al. 2024, arXiv:2402.11505).

    Σ_k w_k B_k A_k = U Σ Vᵀ;  B ← U√Σ,  A ← √Σ Vᵀ, the r largest

Site k starts from the first r_k columns of B and rows of A: the nearest product of its rank (Eckart
& Young 1936). The part beyond rank r is lost in every round; `aggregation_error` gives its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import enough, mean_beside_pairs
from cloister.strategies.low_rank import mean_product, tensors_of
from cloister.strategies.method import WEIGHTS, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class FlexLora:
    """Averages products and cuts them to the study's rank.

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
            mixes_ranks=True,
        )

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1: its pairs are of the largest rank."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Averages the products, cut to the study's rank, and the head."""
        enough(updates, 1)
        adapter = state.adapter.replace(mean_beside_pairs(state.adapter, updates, self.weights))
        for pair in find_pairs(next(iter(updates.values()))):
            mean = mean_product(pair, state.adapter, updates, self.weights)
            if mean.norm() > 0:  # else both factors would be zero and could not learn again
                rank = len(state.adapter[pair.right])
                adapter = adapter.replace(tensors_of(pair, mean.truncated(rank)))
        return replace(state, adapter=adapter, round=state.round + 1)


METHODS = (
    Method(name="flexlora", fields=WEIGHTS, make=lambda weights, options: FlexLora(weights)),
)
