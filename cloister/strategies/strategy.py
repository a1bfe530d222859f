"""What a strategy is: two pure functions over a frozen state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cloister.adapter.tensors import Adapter


@dataclass(frozen=True)
class ServerState:
    """Everything that the next round depends on.

    Attributes:
        adapter: The global adapter.
        round: Rounds closed so far.
        memory: What a strategy remembers over rounds, by its own names; each of the adapter's
            shapes.
    """

    adapter: Adapter
    round: int = 0
    memory: Mapping[str, Adapter] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What holds of a strategy, so that a recipe can refuse what does not go together.

    Attributes:
        is_linear: Whether it needs no more than the updates' weighted sum: then it goes with
            secure aggregation, and noise of many sites averages out.
        takes_weights: Whether sites may have declared weights.
        fewest: Fewest updates that it is defined for.
        survives: Most sites of `fewest` that may send anything at all without deciding the result.
        averages: Whether a round is to end at the mean of the sites' models, so that its distance
            from there is an error.
        trains: The values of `lora.train` that it goes with; empty: all.
        keeps_residual: Whether it needs a residual pair beside each adapter (`lora.residual`).
        mixes_ranks: Whether sites may train adapters of different ranks (`lora.ranks`).
    """

    is_linear: bool
    takes_weights: bool
    fewest: int = 1
    survives: int = 0
    averages: bool = False
    trains: tuple[str, ...] = ()
    keeps_residual: bool = False
    mixes_ranks: bool = False


class Strategy(Protocol):
    """State in, state out: resuming is loading the state, nothing else."""

    @property
    def traits(self) -> Traits:
        """What holds of it."""

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Closes a round.

        Args:
            state: Before the round.
            updates: Clipped deltas by site, of one set of names; at least `traits.fewest`.

        Raises:
            ValueError: There are too few updates, or their shapes differ.
        """


class Linear(Strategy, Protocol):
    """A strategy that needs the weighted mean alone: from a stream, or a secure sum."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Declared weights by site; a site without one weighs 1."""

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Closes a round whose updates have this weighted mean."""


@runtime_checkable
class Gate(Protocol):
    """A strategy that leaves some updates out, and says which and why."""

    def left_out(self, updates: Mapping[str, Adapter]) -> Mapping[str, str]:
        """Reasons by site, for each update that does not count."""
