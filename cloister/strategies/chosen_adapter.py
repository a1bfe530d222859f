"""Chooses the adapter that a study delivers and scores: the last one, or an average over rounds.

Training continues from the last adapter in both cases. An average is post-processing of adapters
that the sites received, with public constants, so it costs no ε. Its memory is part of
`ServerState.memory`, so a resumed run delivers the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.adapter.tensors import Adapter
from cloister.strategies.averaging import Averaging
from cloister.strategies.strategy import ServerState

AVERAGE = "average"


@dataclass(frozen=True)
class Delivery:
    """Computes the delivered adapter from the one that trains; by default they are the same.

    Attributes:
        averaging: How adapters are averaged over rounds; None: the last one is delivered.
    """

    averaging: Averaging | None = None

    def begin(self, state: ServerState) -> ServerState:
        """Adds the average's memory before round 1 to a strategy's memory."""
        return self._with(state, state.adapter)

    def inner(self, state: ServerState) -> ServerState:
        """Returns the state for the strategy, with only the strategy's own memory."""
        if self.averaging is None:  # a plug-in's strategy may have a part of the same name
            return state
        memory = {name: part for name, part in state.memory.items() if name != AVERAGE}
        return replace(state, memory=memory)

    def after(self, before: ServerState, closed: ServerState) -> ServerState:
        """Returns the whole state after a round.

        Args:
            before: The whole state before it.
            closed: The strategy's state after `inner(before)`; for a round without an update, the
                same state with the next round's number.
        """
        if self.averaging is None:
            return closed
        average = self.averaging.add(before.memory[AVERAGE], closed.adapter, closed.round)
        return self._with(closed, average)

    def skip(self, state: ServerState) -> ServerState:
        """Counts a round without an update: the adapter stays, and is averaged once more."""
        inner = self.inner(state)
        return self.after(state, replace(inner, round=state.round + 1))

    def adapter(self, state: ServerState) -> Adapter:
        """Returns the adapter that a study delivers if it ends in this state."""
        return state.adapter if self.averaging is None else state.memory[AVERAGE]

    def view(self, state: ServerState) -> ServerState:
        """Returns the state with the delivered adapter in place of the one that trains."""
        return replace(state, adapter=self.adapter(state))

    def _with(self, state: ServerState, average: Adapter) -> ServerState:
        if self.averaging is None:
            return state
        return replace(state, memory={**state.memory, AVERAGE: average})
