"""Takes a proximal step towards the adapter with which a study began, for continual learning.

    x ← (x + μ x₀) / (1 + μ)        the proximal operator of μ/2 ‖x − x₀‖²

    (Parikh & Boyd 2014, Proximal Algorithms, section 1.1; the penalty is L2-SP of Li, Grandvalet &
    Davoine 2018, arXiv:1802.01483)

FedProx's term (`training.proximal`) pulls towards the adapter of the round, which moves with the
study; x₀ stays. The coordinator takes this step after each round's aggregation, so it is
post-processing of what the sites released: it costs no privacy and works with secure aggregation.
"""

from __future__ import annotations

import dataclasses

from cloister.adapter.tensors import Adapter
from cloister.strategies.strategy import ServerState


def pulled(state: ServerState, start: Adapter, weight: float) -> ServerState:
    """Takes a proximal step after a round's aggregation.

    Args:
        state: The state after the round's aggregation.
        start: x₀, the adapter before round 1, with the names and shapes of the state's adapter.
        weight: μ ≥ 0; 0 changes nothing, and a large μ returns to the start.

    Raises:
        ValueError: The adapters' names or shapes differ.
    """
    if not weight:
        return state
    moved = (state.adapter + start.scale(weight)).scale(1 / (1 + weight))
    return dataclasses.replace(state, adapter=moved)
