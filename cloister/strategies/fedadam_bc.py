"""Subtracts the known noise variance from FedAdam's second moment.

This is DP-AdamBC (Tang, Shpilevskiy & Lécuyer 2024, arXiv:2312.14334, algorithm 1) at the server.

    m ← β₁ m + (1 − β₁) Δ̄
    v ← β₂ v + (1 − β₂) Δ̄²
    p ← β₂ p + (1 − β₂) φ                        φ: noise variance of each value of Δ̄
    x ← x + η m / (√max(v − p, p / 10) + τ)

v is the squared signal plus the noise. If the noise is far larger, plain FedAdam divides all
coordinates by nearly the same number, while v − p follows the signal. φ changes with the learning
rate and with the sites that answer, so p is averaged like v. Without noise the result is FedAdam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cloister.adapter.tensors import Adapter, Array
from cloister.strategies.arithmetic import each, stepped, weighted_mean
from cloister.strategies.fedopt import FedOpt
from cloister.strategies.method import SERVER, Method, Options, Weights
from cloister.strategies.strategy import ServerState, Traits

# The least of v − p over p. In a coordinate of noise alone v has mean p and, with β₂ = 0.99, a
# deviation of √(2 · 0.01 / 1.99) p = 0.1 p, so v − p is between 0 and this in a third of them; and
# no step is longer than √10 = 3.2 times FedAdam's. As at the sites (`cloister.training.adam_bc`).
FLOOR_SHARE = 0.1


@dataclass(frozen=True)
class FedAdamBC:
    """FedAdam with corrected second moments.

    Attributes:
        adam: FedAdam with its constants.
    """

    adam: FedOpt

    @property
    def weights(self) -> Mapping[str, float]:
        """Returns the declared weights by site; a site without one has the weight 1."""
        return self.adam.weights

    @property
    def traits(self) -> Traits:
        """Returns the traits: linear, and it needs the noise variance of the mean."""
        return replace(self.adam.traits, knows_noise=True)

    def init(self, adapter: Adapter) -> ServerState:
        """Returns the state before round 1: v is τ² as in FedAdam, and p is 0."""
        state = self.adam.init(adapter)
        return replace(state, memory={**state.memory, "noise": adapter.zeros()})

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Takes a server step along the mean delta."""
        return self.step(state, weighted_mean(updates, self.weights))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Takes a server step; moments of tensors that were not sent stay unchanged."""
        noise = each(
            lambda p: p + np.float32(1 - self.adam.second_momentum) * (state.noise_variance - p),
            state.memory["noise"].select(mean),
        )
        first, second = self.adam.moments(state, mean)
        step = each(self._step, first, second, noise)
        moments = {"first": first, "second": second, "noise": noise}
        memory = {name: state.memory[name].replace(part) for name, part in moments.items()}
        return stepped(state, step, memory)

    def _step(self, first: Array, second: Array, noise: Array) -> Array:
        left = np.maximum(second - noise, np.float32(FLOOR_SHARE) * noise)
        return self.adam.direction(first, left)


def _make(weights: Weights, options: Options) -> FedAdamBC:
    return FedAdamBC(
        FedOpt(
            "fedadam",
            weights,
            options["learning_rate"],
            options["momentum"],
            options["second_momentum"],
            options["adaptivity"],
        )
    )


METHODS = (
    Method(name="fedadam-bc", fields=SERVER | {"adaptivity", "second_momentum"}, make=_make),
)
