"""Receives a round's updates as they arrive, and keeps them or adds them to a sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from cloister.adapter.tensors import Adapter
from cloister.strategies.exact_sum import RunningMean
from cloister.strategies.strategy import MeanStrategy, ServerState, Strategy


class Accumulator(Protocol):
    """Receives a round's updates one at a time, and closes the round with them."""

    @property
    def held(self) -> Mapping[str, Adapter]:
        """The updates that are kept, by site."""

    def add(self, site: str, update: Adapter) -> None:
        """Takes a site's update; each site once."""

    def close(self, state: ServerState) -> ServerState:
        """Returns the state after the round; called once, as a sum is then given up.

        Raises:
            ValueError: There are too few updates, or their shapes differ.
        """


class Buffered:
    """Keeps every update: for strategies, and figures, that need each of them."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.held: dict[str, Adapter] = {}

    def add(self, site: str, update: Adapter) -> None:
        """Keeps a site's update until the round is closed."""
        self.held[site] = update

    def close(self, state: ServerState) -> ServerState:
        """Runs the strategy on all updates of the round."""
        return self._strategy.aggregate(state, self.held)


class Streaming:
    """Adds each update to a running mean and keeps none.

    Guarantees:
        The result has the same bits as that of `Buffered`, for any order of updates. Memory does
        not grow with the number of sites.
    """

    held: Mapping[str, Adapter] = {}

    def __init__(self, strategy: MeanStrategy) -> None:
        self._strategy = strategy
        self._mean = RunningMean(strategy.weights)

    def add(self, site: str, update: Adapter) -> None:
        """Adds a site's update to the running sum."""
        self._mean.add(site, update)

    def close(self, state: ServerState) -> ServerState:
        """Runs the strategy's step on the mean."""
        return self._strategy.step(state, self._mean.take())


def accumulator_of(strategy: Strategy, *, keep: bool) -> Accumulator:
    """Returns the accumulator for a round's updates: a buffer or a running sum.

    Args:
        strategy: Its traits state whether it needs only the mean.
        keep: Whether another part (figures, an audit) needs each update.
    """
    if keep or not strategy.traits.is_linear:
        return Buffered(strategy)
    return Streaming(cast(MeanStrategy, strategy))
