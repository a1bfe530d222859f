"""Adaptive server optimizers: FedAdagrad, FedAdam, FedYogi (Reddi et al. 2021, arXiv:2003.00295,
algorithm 2).

    m ← β₁ m + (1 − β₁) Δ̄
    v ← v + Δ̄²                                 Adagrad
        β₂ v + (1 − β₂) Δ̄²                     Adam
        v − (1 − β₂) Δ̄² sign(v − Δ̄²)           Yogi
    x ← x + η m / (√v + τ)

Under privacy every coordinate of the mean has noise of the same size, so v becomes nearly equal in
all coordinates: with much noise these rules are close to momentum with a smaller step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cloister.adapter.tensors import Adapter, Array
from cloister.strategies.arithmetic import each, stepped, weighted_mean
from cloister.strategies.method import SERVER, Method, Options, Weights
from cloister.strategies.strategy import ServerState, Traits

Rule = Literal["fedadagrad", "fedadam", "fedyogi"]
# A placeholder: Adagrad sums second moments and has no β₂.
UNUSED = 0.99


@dataclass(frozen=True)
class FedOpt:
    """An adaptive optimizer over mean deltas.

    Attributes:
        rule: How second moments are updated.
        weights: By site; a site without one weighs 1.
        learning_rate: η, of the server.
        momentum: β₁.
        second_momentum: β₂; Adagrad has none.
        adaptivity: τ: larger is closer to momentum alone.
    """

    rule: Rule
    weights: Mapping[str, float]
    learning_rate: float
    momentum: float
    second_momentum: float
    adaptivity: float

    @property
    def traits(self) -> Traits:
        """Linear: it needs the mean alone."""
        return Traits(is_linear=True, takes_weights=True)

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1: v starts at τ², as in the paper."""
        start = each(lambda x: np.full_like(x, self.adaptivity**2), adapter)
        return ServerState(adapter, memory={"first": adapter.zeros(), "second": start})

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Takes a server step along the mean delta."""
        return self.step(state, weighted_mean(updates, self.weights))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Takes a server step; moments of tensors that did not travel stay as they were."""
        first, second = self.moments(state, mean)
        step = each(self.direction, first, second)
        moments = {"first": first, "second": second}
        memory = {name: state.memory[name].replace(part) for name, part in moments.items()}
        return stepped(state, step, memory)

    def moments(self, state: ServerState, mean: Adapter) -> tuple[Adapter, Adapter]:
        """M and v after a round, of the tensors that travelled."""
        before, spread = state.memory["first"], state.memory["second"]
        first = before.select(mean).scale(self.momentum) + mean.scale(1 - self.momentum)
        return first, each(self._second, spread.select(mean), mean)

    def _second(self, v: Array, mean: Array) -> Array:
        square, share = np.square(mean), np.float32(1 - self.second_momentum)
        change: Array = square
        if self.rule == "fedadam":
            change = share * (square - v)
        elif self.rule == "fedyogi":
            change = -share * square * np.sign(v - square)
        return np.asarray(v + change, dtype=np.float32)

    def direction(self, first: Array, second: Array) -> Array:
        """η m / (√v + τ), the step of one tensor."""
        rate, floor = np.float32(self.learning_rate), np.float32(self.adaptivity)
        return np.asarray(rate * first / (np.sqrt(second) + floor), dtype=np.float32)


def _method(rule: Rule, fields: frozenset[str]) -> Method:
    def make(weights: Weights, options: Options) -> FedOpt:
        return FedOpt(
            rule,
            weights,
            options["learning_rate"],
            options["momentum"],
            options.get("second_momentum", UNUSED),
            options["adaptivity"],
        )

    return Method(name=rule, fields=fields, make=make)


METHODS = (
    _method("fedadagrad", SERVER | {"adaptivity"}),
    _method("fedadam", SERVER | {"adaptivity", "second_momentum"}),
    _method("fedyogi", SERVER | {"adaptivity", "second_momentum"}),
)
