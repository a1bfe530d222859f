"""What a study delivers and scores: its last adapter, or an average, while training goes on from
the last one.

It is post-processing of adapters that the sites were sent, with public constants, so it costs no ε.
Its memory is part of `ServerState.memory`, so a run that is resumed delivers the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.adapter.tensors import Adapter
from cloister.strategies.averaging import Averaging
from cloister.strategies.strategy import ServerState

AVERAGE = "average"


@dataclass(frozen=True)
class Delivery:
    """From the adapter that trains to the one that is delivered; by default the same.

    Attributes:
        averaging: How adapters are averaged over rounds; None: the last one is delivered.
    """

    averaging: Averaging | None = None

    def begin(self, state: ServerState) -> ServerState:
        """Adds the memory before round 1 to a strategy's."""
        return self._with(state, state.adapter)

    def inner(self, state: ServerState) -> ServerState:
        """Returns the state as the strategy sees it: with its own memory alone."""
        if self.averaging is None:  # a plug-in's strategy may have a part of the same name
            return state
        memory = {name: part for name, part in state.memory.items() if name != AVERAGE}
        return replace(state, memory=memory)

    def after(self, before: ServerState, closed: ServerState) -> ServerState:
        """Returns the whole state after a round.

        Args:
            before: The whole state before it.
            closed: What the strategy made of `inner(before)`; for a round without an update the
                same with the next round's number.
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
        """Returns the state with what is delivered in place of the adapter that trains."""
        return replace(state, adapter=self.adapter(state))

    def _with(self, state: ServerState, average: Adapter) -> ServerState:
        if self.averaging is None:
            return state
        return replace(state, memory={**state.memory, AVERAGE: average})
