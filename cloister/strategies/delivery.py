"""What a study delivers and scores: an average of its adapters, denoised, while training goes on
from the last one.

Both are post-processing of adapters that the sites were sent, with public constants, so they cost
no ε. Their memory is part of `ServerState.memory`, so a run that is resumed delivers the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cloister.adapter.tensors import Adapter, Array
from cloister.strategies.averaging import Averaging
from cloister.strategies.denoising import shrink_singular_values
from cloister.strategies.noise_tracker import PREFIX, NoiseTracker, deviations
from cloister.strategies.strategy import ServerState

AVERAGE, NOISE, TRACKED = "average", "average_noise", f"{PREFIX}adapter"


@dataclass(frozen=True)
class Delivery:
    """From the adapter that trains to the one that is delivered; by default the same.

    Attributes:
        averaging: How adapters are averaged over rounds; None: the last one is delivered.
        tracker: Follows the noise, for shrinking singular values at its level; None: nothing is
            shrunk.
        start: The adapter before round 1; with a tracker, what differs from it is shrunk.
    """

    averaging: Averaging | None = None
    tracker: NoiseTracker | None = None
    start: Adapter | None = None

    def begin(self, state: ServerState) -> ServerState:
        """Adds the memory before round 1 to a strategy's."""
        memory: dict[str, Adapter] = {}
        if self.tracker is not None:
            memory |= self.tracker.begin(state.adapter.keys())
        if self.averaging is not None:
            memory[AVERAGE] = state.adapter
            if self.tracker is not None:
                memory[NOISE] = memory[TRACKED]
        return replace(state, memory={**state.memory, **memory})

    @property
    def is_plain(self) -> bool:
        """Whether the adapter that trains is delivered."""
        return self.averaging is None and self.tracker is None

    def inner(self, state: ServerState) -> ServerState:
        """Returns the state as the strategy sees it: with its own memory alone."""
        own = self._own(state.memory)
        return replace(state, memory={n: p for n, p in state.memory.items() if n not in own})

    def after(
        self, before: ServerState, closed: ServerState, noise: float, trained: Collection[str]
    ) -> ServerState:
        """Returns the whole state after a round.

        Args:
            before: The whole state before it.
            closed: What the strategy made of `inner(before)`.
            noise: Variance of the noise of each value in the round's mean.
            trained: Names of the tensors that the mean has.
        """
        own = self._own(before.memory)
        if self.tracker is not None:
            own |= self.tracker.after(own, closed.round, noise, trained)
        return self._averaged(replace(closed, memory={**closed.memory, **own}))

    def skip(self, state: ServerState) -> ServerState:
        """Counts a round without an update: the adapter stays, and is averaged once more."""
        return self._averaged(replace(state, round=state.round + 1))

    def adapter(self, state: ServerState) -> Adapter:
        """Returns the adapter that a study delivers if it ends in this state."""
        whole = state.adapter if self.averaging is None else state.memory[AVERAGE]
        if self.tracker is None or self.start is None:
            return whole
        noise = state.memory[TRACKED if self.averaging is None else NOISE]
        return denoised(whole, self.start, deviations(noise))

    def view(self, state: ServerState) -> ServerState:
        """Returns the state with what is delivered in place of the adapter that trains."""
        return replace(state, adapter=self.adapter(state))

    def _averaged(self, state: ServerState) -> ServerState:
        if self.averaging is None:
            return state
        averages = {AVERAGE: state.adapter}
        if self.tracker is not None:
            averages[NOISE] = state.memory[TRACKED]
        added = {
            name: self.averaging.add(state.memory[name], last, state.round)
            for name, last in averages.items()
        }
        return replace(state, memory={**state.memory, **added})

    def _own(self, memory: Mapping[str, Adapter]) -> dict[str, Adapter]:
        """This class's part of a memory: a plug-in's strategy, of which nothing is averaged, may
        have the same names."""
        averages = (AVERAGE, NOISE) if self.averaging is not None else ()
        prefix = PREFIX if self.tracker is not None else None
        return {
            name: part
            for name, part in memory.items()
            if name in averages or (prefix is not None and name.startswith(prefix))
        }


def denoised(adapter: Adapter, start: Adapter, noise: Mapping[str, float]) -> Adapter:
    """Shrinks the singular values of what training changed in each matrix.

    Args:
        adapter: After training.
        start: Before it.
        noise: Standard deviation of the noise of each coordinate, by tensor.

    Returns:
        Vectors, and tensors without noise, are as they were.
    """

    def estimate(name: str, array: Array) -> Array:
        deviation = noise.get(name, 0.0)
        if array.ndim != 2 or deviation == 0:
            return array
        change = array.astype(float) - start[name]
        whole: Array = (start[name] + shrink_singular_values(change, deviation)).astype("float32")
        return whole

    return Adapter({name: estimate(name, array) for name, array in adapter.items()})
