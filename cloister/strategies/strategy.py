"""The protocol of a strategy: two pure functions over a frozen state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cloister.adapter.tensors import Adapter
from cloister.strategies.exact_sum import RunningMean


@dataclass(frozen=True)
class ServerState:
    """Everything that the next round depends on.

    Attributes:
        adapter: The global adapter.
        round: Rounds closed so far.
        memory: What a strategy remembers over rounds, by names that it chooses; each entry has the
            adapter's names and shapes.
        noise_variance: Variance of the noise of each value in the mean of the round that is closed
            next, known from the plans (`cloister.server.aggregate_noise`). The round loop states it
            for strategies whose traits say that they read it (`Traits.knows_noise`); otherwise, and
            without privacy, it is 0. It is not stored.
    """

    adapter: Adapter
    round: int = 0
    memory: Mapping[str, Adapter] = field(default_factory=dict)
    noise_variance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Declared properties that a recipe is checked against; a study that does not fit is refused.

    The defaults claim nothing: a strategy without traits gets each update of a round, and a study
    that needs a trait refuses it.

    Attributes:
        is_linear: Whether it needs only the updates' weighted sum. Then it works with secure
            aggregation, and the noise of many sites averages out.
        takes_weights: Whether sites may have declared weights.
        fewest: The fewest updates that it can aggregate.
        survives: How many of `fewest` sites may send anything without controlling the result.
        averages: Whether a round should end at the mean of the sites' models, so that its distance
            from that mean is an error.
        trains: The values of `lora.train` that it works with; empty: all.
        keeps_residual: Whether it needs a residual pair beside each adapter (`lora.residual`).
        mixes_ranks: Whether sites may train adapters of different ranks (`lora.ranks`).
        factors: Whether it works on the two factors of LoRA's products: other adapters
            (`lora.method`), whose vectors average exactly, have nothing for it to do.
        knows_noise: Whether it reads `ServerState.noise_variance`, so that the noise of a round's
            mean must be known: that of gradient rounds is.
    """

    is_linear: bool = False
    takes_weights: bool = False
    fewest: int = 1
    survives: int = 0
    averages: bool = False
    trains: tuple[str, ...] = ()
    keeps_residual: bool = False
    mixes_ranks: bool = False
    factors: bool = False
    knows_noise: bool = False


class Strategy(Protocol):
    """Takes a state and returns the next one, so that loading a state is enough to resume.

    Derive your class from it and write `aggregate`; a strategy that remembers something writes
    `init` too. Both are pure functions: they keep nothing on the object, read no clock, and draw
    random numbers only from the state.

    With its default options a strategy treats equal updates as one update: n sites that all send Δ
    move the adapter by Δ. So a server learning rate is 1 by default. An update is a step that the
    site took at its own rate, already clipped and noised. Another factor would change the study's
    learning rate and the size of its noise, and strategies could not be compared at equal ε.
    Adaptive strategies, whose steps follow signs, are the exception.
    `cloister.testing.check_strategy` checks this.
    """

    @property
    def traits(self) -> Traits:
        """Declared properties; by default none."""
        return Traits()

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1; by default nothing is remembered over rounds."""
        return ServerState(adapter)

    @abstractmethod
    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Returns the state of the next round, from the updates of this one.

        Args:
            state: The state before the round.
            updates: Clipped deltas by site, of one set of names; at least `traits.fewest`.

        Raises:
            ValueError: There are too few updates, or their shapes differ.
        """


class MeanStrategy(Strategy, Protocol):
    """A strategy that needs the weighted mean alone, which may come from a stream or a secure sum.

    Derive your class from it and write `step`.
    """

    @property
    def traits(self) -> Traits:
        """Linear: only the weighted mean is needed."""
        return Traits(is_linear=True)

    @property
    def weights(self) -> Mapping[str, float]:
        """Declared weights by site; a site without one weighs 1."""
        return {}

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Steps by the updates' weighted mean."""
        running = RunningMean(self.weights)
        for site, update in updates.items():
            running.add(site, update)
        return self.step(state, running.take())

    @abstractmethod
    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Closes a round, given the weighted mean of its updates."""


@runtime_checkable
class UpdateFilter(Protocol):
    """A strategy that leaves some updates out and says which and why."""

    def left_out(self, updates: Mapping[str, Adapter]) -> Mapping[str, str]:
        """Reasons by site, for each update that does not count."""
