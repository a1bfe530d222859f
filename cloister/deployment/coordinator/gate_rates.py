"""Limits the TLS handshakes of a network without a member's request.

A handshake costs the gate a signature, about a millisecond; a bare connection costs nothing and is
limited by its place. Each network has a token bucket, which fills with time: each stranger's
handshake takes one token, and while the bucket is empty the network's connections wait.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

# Handshakes at once, and per second afterwards. Many members behind one address that start together
# stay below; 20 per second use about 4 % of a core.
BURST, PER_SECOND = 200.0, 20.0
# Seconds without a limit for a network after a member's request, so that members behind the same
# address as a stranger get through.
TRUSTED = 3600.0
# Most networks that are remembered; 4096 use less than 1 MB. This does not stop a distributed
# flood.
MOST_NETWORKS = 4096


@dataclass
class Rates:
    """Handshakes of strangers, by network.

    Attributes:
        burst: Handshakes at once.
        per_second: Handshakes per second afterwards.
    """

    burst: float = BURST
    per_second: float = PER_SECOND
    _tokens: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _trusted: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def allows(self, network: str, now: float) -> bool:
        """Whether a network's next connection may do its handshake now.

        Args:
            network: The network.
            now: Seconds of a monotonic clock.
        """
        return self._trusted.get(network, now) > now or self._left(network, now) >= 1

    def spend(self, network: str, now: float) -> None:
        """Counts a handshake: takes one token of the network."""
        self._tokens[network] = (max(0.0, self._left(network, now) - 1), now)
        self._tokens.move_to_end(network)
        while len(self._tokens) > MOST_NETWORKS:
            self._tokens.popitem(last=False)

    def refund(self, network: str, now: float) -> None:
        """Returns a token for a connection that was closed before it sent anything."""
        if network in self._tokens:
            self._tokens[network] = (min(self.burst, self._left(network, now) + 1), now)

    @property
    def interval(self) -> float:
        """Seconds until there is one more token."""
        return 1 / max(self.per_second, 1e-3)

    def trust(self, network: str, now: float) -> None:
        """Notes a member's request from a network."""
        self._tokens.pop(network, None)
        self._trusted[network] = now + TRUSTED
        self._trusted.move_to_end(network)
        while len(self._trusted) > MOST_NETWORKS:
            self._trusted.popitem(last=False)

    def _left(self, network: str, now: float) -> float:
        tokens, since = self._tokens.get(network, (self.burst, now))
        return min(self.burst, tokens + (now - since) * self.per_second)
