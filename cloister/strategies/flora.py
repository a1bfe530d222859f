"""FLoRA: stacks the sites' adapters and starts afresh every round (Wang et al. 2024,
arXiv:2409.05976).

    R ← R + [w_1 B_1 … w_K B_K] [A_1; …; A_K],  B ← 0,  A ← its start

The paper merges the stack into the base at every site. Here the stack is added to a second pair of
factors beside each adapter, of rank `lora.residual`: exactly at the full rank of the adapted
modules, else to the nearest product of that rank, whose distance `aggregation_error` gives. A stack
takes factors of any rank, so sites may train different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import enough, mean_beside_pairs
from cloister.strategies.low_rank import mean_product, product_of, tensors_of, total
from cloister.strategies.method import WEIGHTS, Method
from cloister.strategies.strategy import ServerState, Traits


@dataclass(frozen=True)
class Flora:
    """Stacks the sites' products into the residual.

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
            mixes_ranks=True,
        )

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1; its adapter is where every round's pairs start again."""
        return ServerState(adapter, memory={"start": adapter})

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Stacks the products and averages the head."""
        enough(updates, 1)
        adapter = state.adapter.replace(mean_beside_pairs(state.adapter, updates, self.weights))
        start = state.memory["start"]
        for pair in find_pairs(next(iter(updates.values()))):
            products = [
                product_of(pair.residual, state.adapter),
                mean_product(pair, state.adapter, updates, self.weights),
                product_of(pair, start).scale(-1.0),
            ]
            rank = len(state.adapter[pair.residual.right])
            stack = tensors_of(pair.residual, total(products).truncated(rank))
            adapter = adapter.replace(stack).replace(start.select(pair))
        return replace(state, adapter=adapter, round=state.round + 1)


METHODS = (Method(name="flora", fields=WEIGHTS, make=lambda weights, options: Flora(weights)),)
