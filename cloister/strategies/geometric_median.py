"""Geometric median: RFA (Pillutla, Kakade, Harchaoui 2022, arXiv:1912.13445, algorithm 2).

    x ← x + argmin_z Σ_k w_k ‖z − Δ_k‖₂        by smoothed Weiszfeld steps
    z ← Σ β_k Δ_k / Σ β_k,  β_k = w_k / max(ν, ‖z − Δ_k‖₂)

The steps start at the coordinates' medians, which fewer than half of the sites cannot move far,
unlike the mean. ν bounds the weight of a site whose update z meets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.adapter.tensors import Adapter
from cloister.strategies.arithmetic import coordinate_medians, enough, stepped, weighted_mean
from cloister.strategies.method import Method
from cloister.strategies.strategy import ServerState, Traits

# Steps and smoothing of the paper's experiments were 3 and 1e-6; more steps cost little beside a
# round of training, and come nearer to the median when sites differ by orders of magnitude.
STEPS, SMOOTHING = 100, 1e-6


@dataclass(frozen=True)
class GeometricMedian:
    """Moves by the point nearest to all updates; fewer than half of the sites cannot control it."""

    @property
    def traits(self) -> Traits:
        """Needs individual updates."""
        return Traits(is_linear=False, takes_weights=False, fewest=3, survives=1)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        return ServerState(adapter)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Adds the geometric median of the deltas."""
        enough(updates, self.traits.fewest)
        center = coordinate_medians(updates)
        for _ in range(STEPS):
            distances = {site: (center - update).norm() for site, update in updates.items()}
            nearness = {site: 1 / max(SMOOTHING, far) for site, far in distances.items()}
            closer = weighted_mean(updates, nearness)
            if (closer - center).norm() <= SMOOTHING * max(1.0, center.norm()):
                break
            center = closer
        return stepped(state, center)


METHODS = (Method(name="geometric-median", make=lambda weights, options: GeometricMedian()),)
