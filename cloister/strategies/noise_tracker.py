"""Computes how much noise of all rounds so far is in an adapter, from each round's noise variance.

A linear strategy that treats coordinates alike makes of noise n_t in round t's mean the noise
Σ_t h_t n_t in the adapter, for some constants h_t. So its variance is Σ_t h_t² φ_t, with φ_t the
variance of a coordinate of n_t. The tracker finds h_t √φ_t by running the strategy itself on one
vector of T values for each tensor, whose round t is √φ_t in coordinate t and 0 elsewhere.

Noise also moves the points at which later gradients are computed. Clipping bounds that part, and it
belongs to what the sites learnt: it is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.strategies.strategy import MeanStrategy, ServerState

# Parts of a tracker in a state's memory begin with it.
PREFIX = "noise_"


@dataclass(frozen=True)
class NoiseTracker:
    """Follows the noise through a strategy.

    Attributes:
        strategy: Linear, and the same for each coordinate.
        num_rounds: T, rounds of the study.
    """

    strategy: MeanStrategy
    num_rounds: int

    def begin(self, names: Collection[str]) -> dict[str, Adapter]:
        """Memory before round 1, for tensors of these names."""
        nothing = np.zeros(self.num_rounds, np.float32)
        return _stored(self.strategy.init(Adapter(dict.fromkeys(names, nothing))))

    def after(
        self, memory: Mapping[str, Adapter], number: int, variance: float, trained: Collection[str]
    ) -> dict[str, Adapter]:
        """Memory after a round.

        Args:
            memory: Before it; entries of other parts are ignored.
            number: The round, from 1.
            variance: φ, of each coordinate of the round's mean.
            trained: Names of the tensors that the mean has.
        """
        impulse = np.zeros(self.num_rounds, np.float32)
        impulse[number - 1] = math.sqrt(variance)
        parts = {
            name.removeprefix(PREFIX): part
            for name, part in memory.items()
            if name.startswith(PREFIX)
        }
        before = ServerState(parts.pop("adapter"), number - 1, parts)
        return _stored(self.strategy.step(before, Adapter(dict.fromkeys(trained, impulse))))


def _stored(state: ServerState) -> dict[str, Adapter]:
    parts = {"adapter": state.adapter, **state.memory}
    return {f"{PREFIX}{name}": part for name, part in parts.items()}


def deviations(part: Adapter) -> dict[str, float]:
    """Returns the standard deviation of the noise of each coordinate, by tensor.

    Args:
        part: A tracked adapter, or an average of tracked adapters.
    """
    return {name: float(np.linalg.norm(array.astype(np.float64))) for name, array in part.items()}
