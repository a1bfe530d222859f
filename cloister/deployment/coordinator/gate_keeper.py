"""Places for connections at the gate, and the order of their TLS handshakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from cloister.deployment.coordinator.gate_places import Places, network_of
from cloister.deployment.coordinator.gate_rates import Rates


@dataclass(eq=False)
class _Caller:
    """A connection, as the gatekeeper sees it."""

    network: str
    start: Callable[[], None]
    cut: Callable[[], None]
    paid: bool = False


@dataclass
class Gatekeeper:
    """Gives connections their places and turns, and takes them back.

    A connection is any value that tells it from others. Where a network has cost more handshakes
    than it may, its connections wait, and the newest has the next turn: a member that comes behind
    a thousand strangers of its network is heard first.

    Attributes:
        places: Of connections.
        rates: Of strangers' handshakes.
        clock: Seconds that only grow.
    """

    places: Places
    rates: Rates
    clock: Callable[[], float] = time.monotonic
    _callers: dict[Hashable, _Caller] = field(default_factory=dict)
    _waiting: dict[str, dict[Hashable, None]] = field(default_factory=dict)

    def admit(
        self, key: Hashable, address: str, start: Callable[[], None], cut: Callable[[], None]
    ) -> None:
        """Gives a connection that was accepted its place; the one that loses its own is cut off.

        Args:
            key: The connection.
            address: Where it comes from.
            start: Begins its handshake, once, when it is its turn.
            cut: Cuts it off.
        """
        network = network_of(address)
        self._callers[key] = _Caller(network, start, cut)
        loser = self.places.enter(key, network)
        is_waiting = network in self._waiting
        self._waiting.setdefault(network, {})[key] = None
        if not is_waiting:
            self._next_turns(network)
        if loser is not None:
            self._callers[loser].cut()

    def belongs(self, key: Hashable, site: str) -> bool:
        """A member spoke on a connection; whether it has a place for it."""
        if not self.places.belongs(key, site):
            return False
        self.rates.trust(self._callers[key].network, self.clock())
        return True

    def left(self, key: Hashable, spoke: bool) -> None:
        """Takes note that a connection was closed.

        Args:
            key: The connection.
            spoke: Whether it sent anything; where not, it has cost nothing.
        """
        self.places.leave(key)
        caller = self._callers.pop(key, None)
        if caller is None:
            return
        self._waiting.get(caller.network, {}).pop(key, None)
        if caller.paid and not spoke:
            self.rates.refund(caller.network, self.clock())

    def _next_turns(self, network: str) -> None:
        """Starts handshakes, the newest first, as far as they may be started now."""
        waiting = self._waiting[network]
        while waiting and self.rates.allows(network, self.clock()):
            key, _ = waiting.popitem()
            self.rates.spend(network, self.clock())
            self._callers[key].paid = True
            self._callers[key].start()
        if waiting:
            asyncio.get_running_loop().call_later(self.rates.interval, self._next_turns, network)
        else:
            del self._waiting[network]
