"""A round's updates as they arrive: held until it closes, or summed and let go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from cloister.adapter.tensors import Adapter
from cloister.strategies.exact_sum import RunningMean
from cloister.strategies.strategy import MeanStrategy, ServerState, Strategy


class Accumulator(Protocol):
    """Takes updates one at a time and closes the round."""

    @property
    def held(self) -> Mapping[str, Adapter]:
        """Updates by site, as far as they are kept."""

    def add(self, site: str, update: Adapter) -> None:
        """Takes a site's update; each site once."""

    def close(self, state: ServerState) -> ServerState:
        """Returns the state after the round.

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
        """The strategy's step over all of them."""
        return self._strategy.aggregate(state, self.held)


class Streaming:
    """Adds each update to a running mean and keeps none.

    Guarantees:
        Bit for bit what `Buffered` gives, in any order. Memory does not grow with the sites.
    """

    held: Mapping[str, Adapter] = {}

    def __init__(self, strategy: MeanStrategy) -> None:
        self._strategy = strategy
        self._mean = RunningMean(strategy.weights)

    def add(self, site: str, update: Adapter) -> None:
        """Adds a site's update to the running sum."""
        self._mean.add(site, update)

    def close(self, state: ServerState) -> ServerState:
        """The strategy's step over their mean."""
        return self._strategy.step(state, self._mean.mean())


def accumulator_of(strategy: Strategy, *, keep: bool) -> Accumulator:
    """Returns what takes a round's updates as they arrive: a buffer or a sum.

    Args:
        strategy: It says whether the mean is all that it needs.
        keep: Whether something else needs each update.
    """
    if keep or not strategy.traits.is_linear:
        return Buffered(strategy)
    return Streaming(cast(MeanStrategy, strategy))
