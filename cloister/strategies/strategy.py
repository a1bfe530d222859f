"""What a strategy is: two pure functions over a frozen state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cloister.adapter.tensors import Adapter


@dataclass(frozen=True)
class ServerState:
    """Everything that the next round depends on.

    Attributes:
        adapter: The global adapter.
        round: Rounds closed so far.
    """

    adapter: Adapter
    round: int = 0


class Strategy(Protocol):
    """State in, state out: resuming is loading the state, nothing else."""

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Closes a round.

        Args:
            state: Before the round.
            updates: Clipped deltas by site, at least one, of one set of names.
        """
