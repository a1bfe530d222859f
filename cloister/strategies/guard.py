"""Checks a plug-in's strategy: an exception or a wrong result becomes an error that names it.

Whatever the plug-in does, the next state has the adapter's names and shapes and finite values, and
the rounds closed before stay saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from cloister.adapter.tensors import Adapter
from cloister.bounds import listed, shortened
from cloister.errors import PluginError
from cloister.plugins import said
from cloister.strategies.arithmetic import enough, weighted_mean
from cloister.strategies.strategy import ServerState, Strategy, Traits

# A name of a strategy's memory, which becomes a file name in a run's checkpoint.
_MEMORY = re.compile(r"[a-z][a-z0-9_]{0,39}")


def guarded(name: str, made: Any, traits: Traits, weights: Mapping[str, float]) -> Strategy:
    """A strategy that calls a plug-in's strategy and checks its results.

    Args:
        name: The plug-in's name, for messages.
        made: The plug-in's strategy object.
        traits: The traits that it declares.
        weights: Declared weights by site.
    """
    kind = _GuardedGate if callable(getattr(made, "left_out", None)) else _Guarded
    return kind(name, made, traits, weights)


class _Guarded:
    """A plug-in's strategy with every call checked; a linear one gets means only."""

    def __init__(self, name: str, made: Any, traits: Traits, weights: Mapping[str, float]) -> None:
        self.name, self.traits, self.weights = name, traits, weights
        self._made = made

    def init(self, adapter: Adapter) -> ServerState:
        """The state before round 1."""
        state: Any = self._call("init", 0, lambda: self._made.init(adapter))
        self._check("init", 0, state, adapter)
        if "adapter" in state.memory or not all(map(_MEMORY.fullmatch, state.memory)):
            self._fail(
                "init",
                0,
                f"memory is called {listed(sorted(state.memory))}; a name of lower-case "
                'letters, digits and _ is needed, and not "adapter"',
            )
        return ServerState(state.adapter, 0, state.memory)

    def aggregate(self, state: ServerState, updates: Mapping[str, Adapter]) -> ServerState:
        """Closes a round; see `Strategy.aggregate`."""
        enough(updates, self.traits.fewest)
        if self.traits.is_linear:
            return self.step(state, weighted_mean(updates, self.weights))
        given = MappingProxyType(dict(updates))
        return self._closed("aggregate", state, lambda: self._made.aggregate(state, given))

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        """Closes a round with its mean; a plug-in without `step` gets the mean as its only
        update."""
        if callable(getattr(self._made, "step", None)):
            return self._closed("step", state, lambda: self._made.step(state, mean))
        return self._closed("aggregate", state, lambda: self._made.aggregate(state, {"mean": mean}))

    def _closed(self, what: str, state: ServerState, call: Callable[[], Any]) -> ServerState:
        """The next state; its round number is counted here, not by the plug-in."""
        number = state.round + 1
        after = self._call(what, number, call)
        self._check(what, number, after, state.adapter)
        if after.memory.keys() != state.memory.keys():
            self._fail(
                what,
                number,
                f"memory of {listed(sorted(after.memory)) or 'nothing'} returned; init began "
                f"with {listed(sorted(state.memory)) or 'nothing'}; give init all of the names",
            )
        return ServerState(after.adapter, number, after.memory)

    def _check(self, what: str, number: int, state: Any, like: Adapter) -> None:
        if not isinstance(state, ServerState):
            self._fail(what, number, f"{type(state).__name__} returned; a ServerState is needed")
        if not isinstance(state.memory, Mapping):
            self._fail(what, number, "memory is not a mapping; adapters by name are needed")
        for part, adapter in {"adapter": state.adapter, **state.memory}.items():
            part = shortened(part)[1:-1]
            if not isinstance(adapter, Adapter):
                self._fail(what, number, f"{part} is {type(adapter).__name__}, not an Adapter")
            if adapter.shapes != like.shapes:
                differ = {*adapter.shapes.items()} ^ {*like.shapes.items()}
                names = sorted({name for name, _ in differ})
                self._fail(what, number, f"{part} has other names or shapes: {listed(names)}")
            if not adapter.is_finite():
                self._fail(what, number, f"{part} has values that are not finite")

    def _call(self, what: str, number: int | None, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Exception, SystemExit) as error:
            self._fail(what, number, said(error), error)

    def _fail(
        self, what: str, number: int | None, why: str, cause: BaseException | None = None
    ) -> NoReturn:
        when = {None: "", 0: ", before round 1"}.get(number, f", round {number}")
        raise PluginError(
            f"strategy.name: {self.name} failed in {what}{when}: {why}; closed rounds are "
            "saved: fix the plug-in and resume the run, or choose another strategy"
        ) from cause


class _GuardedGate(_Guarded):
    """A checked strategy that may leave updates out."""

    def left_out(self, updates: Mapping[str, Adapter]) -> Mapping[str, str]:
        """Reasons by site, for each update that does not count."""
        given = MappingProxyType(dict(updates))
        found = self._call("left_out", None, lambda: dict(self._made.left_out(given)))
        strange = [key for key in found if key not in updates]
        if strange or not all(isinstance(why, str) for why in found.values()):
            self._fail("left_out", None, "texts by site are needed, for sites that sent an update")
        return {site: shortened(why)[1:-1] for site, why in found.items()}
