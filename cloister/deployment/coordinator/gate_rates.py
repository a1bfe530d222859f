"""How many TLS handshakes a network may cost that no member's request followed.

A handshake costs the gate a signature, about a millisecond; a bare connection costs nothing, and is
bounded by its place alone. A token bucket for each network: it fills with time, each stranger's
handshake takes one token, and while it is empty the network's connections wait.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

# Handshakes at once, and a second from then on: many members that start at once behind one address
# stay below; 20 a second are about 4 % of a core.
BURST, PER_SECOND = 200.0, 20.0
# Seconds in which a network from which a member spoke is not held back: members behind the same
# address as a stranger get through.
TRUSTED = 3600.0
# Networks that are remembered; whoever has more of them is not held off by this (a distributed
# flood), and 4096 are below 1 MB.
MOST_NETWORKS = 4096


@dataclass
class Rates:
    """Handshakes of strangers, by network.

    Attributes:
        burst: At once.
        per_second: From then on.
    """

    burst: float = BURST
    per_second: float = PER_SECOND
    _tokens: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _trusted: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def allows(self, network: str, now: float) -> bool:
        """Whether a network's next connection is heard now.

        Args:
            network: Where it comes from.
            now: Seconds that only grow.
        """
        return self._trusted.get(network, now) > now or self._left(network, now) >= 1

    def spend(self, network: str, now: float) -> None:
        """Counts a handshake."""
        self._tokens[network] = (max(0.0, self._left(network, now) - 1), now)
        self._tokens.move_to_end(network)
        while len(self._tokens) > MOST_NETWORKS:
            self._tokens.popitem(last=False)

    def refund(self, network: str, now: float) -> None:
        """Takes a count back: the connection was closed before it said anything."""
        if network in self._tokens:
            self._tokens[network] = (min(self.burst, self._left(network, now) + 1), now)

    @property
    def interval(self) -> float:
        """Seconds until there is one token more."""
        return 1 / max(self.per_second, 1e-3)

    def trust(self, network: str, now: float) -> None:
        """Notes that a member spoke from a network."""
        self._tokens.pop(network, None)
        self._trusted[network] = now + TRUSTED
        self._trusted.move_to_end(network)
        while len(self._trusted) > MOST_NETWORKS:
            self._trusted.popitem(last=False)

    def _left(self, network: str, now: float) -> float:
        tokens, since = self._tokens.get(network, (self.burst, now))
        return min(self.burst, tokens + (now - since) * self.per_second)
