"""Who may hold a connection to the gate: strangers, few from a network, and members.

Whoever has not shown a member's signature is a stranger. Strangers never wait for a place: the
newcomer gets one, and it is taken from the network that holds most. So however many connections
are opened from one address, a member's gets through; and no stranger ever has a member's place.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

# Bits of an IPv6 address that one customer is given at least (RFC 6177 names /64 as the smallest);
# of IPv4 it is the whole address.
IPV6_PREFIX = 64


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 address's /64.

    An IPv4 address that is written as IPv6, as a socket on `::` sees it, is the IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_PREFIX), strict=False))


@dataclass
class Places:
    """How many connections may be open, by address and in all.

    Attributes:
        strangers: Of all connections on which no member has spoken.
        per_network: Of those, from one network.
        members: Of all members' connections.
        per_member: Of one member's.
    """

    strangers: int
    per_network: int
    members: int
    per_member: int
    _waiting: OrderedDict[Hashable, str] = field(default_factory=OrderedDict)
    _networks: dict[str, OrderedDict[Hashable, None]] = field(default_factory=dict)
    _sites: dict[Hashable, str] = field(default_factory=dict)
    _held: Counter[str] = field(default_factory=Counter)

    def enter(self, key: Hashable, network: str) -> Hashable | None:
        """Gives a new connection a stranger's place.

        Args:
            key: The connection's.
            network: Where it comes from (`network_of`).

        Returns:
            The connection that loses its place: the oldest of the network, where that has as many
            as it may; else, where all places are taken, the oldest of a network that has most.
        """
        self._waiting[key] = network
        own = self._networks.setdefault(network, OrderedDict())
        own[key] = None
        if len(own) > self.per_network:
            return self._lose(next(iter(own)))
        if len(self._waiting) > self.strangers:
            most = max(len(keys) for keys in self._networks.values())
            oldest = next(k for k, n in self._waiting.items() if len(self._networks[n]) == most)
            return self._lose(oldest)
        return None

    def belongs(self, key: Hashable, site: str) -> bool:
        """Gives a connection on which a member has spoken a member's place.

        Returns:
            Whether it has one: not where the member, or all of them, have as many as they may.
        """
        if self._sites.get(key) == site:
            return True
        others = len(self._sites) - (key in self._sites)
        if self._held[site] >= self.per_member or others >= self.members:
            return False
        self.leave(key)
        self._sites[key] = site
        self._held[site] += 1
        return True

    def leave(self, key: Hashable) -> None:
        """Takes a connection's place back; one that has none has lost it before."""
        if key in self._waiting:
            self._lose(key)
        site = self._sites.pop(key, None)
        if site is not None:
            self._held[site] -= 1

    def taken(self) -> tuple[int, int]:
        """How many places strangers and members hold."""
        return len(self._waiting), len(self._sites)

    def _lose(self, key: Hashable) -> Hashable:
        network = self._waiting.pop(key)
        del self._networks[network][key]
        if not self._networks[network]:
            del self._networks[network]
        return key
