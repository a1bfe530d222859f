"""Assigns places to connections at the gate, and orders their TLS handshakes."""

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
    """Assigns places and turns to connections, and frees them.

    A connection is identified by any hashable value. If a network has used up its handshakes, its
    connections wait, and the newest has the next turn: so a member that comes after a thousand
    strangers of its network is served first.

    Attributes:
        places: The places for connections.
        rates: The rates of strangers' handshakes.
        clock: Returns seconds of a monotonic clock.
    """

    places: Places
    rates: Rates
    clock: Callable[[], float] = time.monotonic
    _callers: dict[Hashable, _Caller] = field(default_factory=dict)
    _waiting: dict[str, dict[Hashable, None]] = field(default_factory=dict)

    def admit(
        self, key: Hashable, address: str, start: Callable[[], None], cut: Callable[[], None]
    ) -> None:
        """Assigns a place to an accepted connection; the connection that loses its place is cut
        off.

        Args:
            key: The connection.
            address: Its remote address.
            start: Begins its handshake; called once, at its turn.
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
        """Moves a connection to its member's places; returns whether the member has a free one."""
        if not self.places.belongs(key, site):
            return False
        self.rates.trust(self._callers[key].network, self.clock())
        return True

    def left(self, key: Hashable, spoke: bool) -> None:
        """Notes that a connection was closed.

        Args:
            key: The connection.
            spoke: Whether it sent anything; if not, its handshake is not counted.
        """
        self.places.leave(key)
        caller = self._callers.pop(key, None)
        if caller is None:
            return
        self._waiting.get(caller.network, {}).pop(key, None)
        if caller.paid and not spoke:
            self.rates.refund(caller.network, self.clock())

    def _next_turns(self, network: str) -> None:
        """Starts as many handshakes as allowed now, the newest first."""
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
