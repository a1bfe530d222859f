"""FedSVD: makes the rows of A orthonormal after every round (Lee et al. 2025, arXiv:2505.12805).

    x ← x + Δ̄;  B A = U Σ Vᵀ;  B ← U Σ,  A ← Vᵀ        rank r, so no product changes

So each site's B learns through rows of length 1, whatever A was before. The server sees noised
means alone, so this is post-processing and costs no ε. Sites train B (`lora.train = "b-moving"`: A
travels down only), or both factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import stepped, weighted_mean
from cloister.strategies.low_rank import Product, product_of, tensors_of
from cloister.strategies.method import WEIGHTS, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class FedSvd:
    """FedAvg, followed by a change of basis that keeps the products.

    Attributes:
        weights: By site; a site without one weighs 1.
    """

    weights: Mapping[str, float]

    @property
    def traits(self) -> Traits:
        """Linear: it needs the mean alone."""
        return Traits(
            is_linear=True,
            takes_weights=True,
            averages=True,
            trains=("b-moving", "both"),
            factors=True,
        )

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1: A as the sites made it from the seed."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the mean delta and makes A's rows orthonormal."""
        return self.step(state, weighted_mean(updates, self.weights))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Adds the mean, then changes the basis of each pair with a moved factor, if both factors
        are here.

        Guarantees:
            Products change by float32's rounding alone.
        """
        moved = stepped(state, mean)
        adapter = moved.adapter
        for pair in find_pairs(mean):
            if set(pair) <= adapter.keys():
                left, singular, right = product_of(pair, adapter).svd()
                adapter = adapter.replace(tensors_of(pair, Product(left * singular, right)))
        return replace(moved, adapter=adapter)


METHODS = (Method(name="fedsvd", fields=WEIGHTS, make=lambda weights, options: FedSvd(weights)),)
