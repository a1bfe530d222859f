"""Limits the connections to the gate: of strangers, of one network, and of members.

A connection without a member's signature is a stranger's. Strangers never wait for a place: a
newcomer gets the place of a connection of the network that holds most. So a member gets through
even if one address opens many connections, and a stranger never has a member's place.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

# Prefix length of an IPv6 network: the smallest that one customer gets is /64 (RFC 6177); for IPv4
# the whole address counts.
IPV6_PREFIX = 64


def network_of(address: str) -> str:
    """The network of an address: an IPv4 address itself, or an IPv6 address's /64.

    An IPv4 address in IPv6 form, as a socket on `::` sees it, counts as the IPv4 address.
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
    """The open connections, with limits by network and in total.

    Attributes:
        strangers: Most connections of strangers.
        per_network: Most connections of strangers from one network.
        members: Most connections of all members.
        per_member: Most connections of one member.
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
            key: Identifies the connection.
            network: Its network (`network_of`).

        Returns:
            The connection that loses its place: the oldest of the same network if that has its
            most; else, if all places are taken, the oldest of the network with most. None: no
            connection.
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
        """Moves a connection to a member's place.

        Returns:
            Whether there was one: not if the member, or all members, have their most.
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
        """Frees a connection's place, if it still has one."""
        if key in self._waiting:
            self._lose(key)
        site = self._sites.pop(key, None)
        if site is not None:
            self._held[site] -= 1

    def taken(self) -> tuple[int, int]:
        """Number of places that strangers and members hold."""
        return len(self._waiting), len(self._sites)

    def _lose(self, key: Hashable) -> Hashable:
        network = self._waiting.pop(key)
        del self._networks[network][key]
        if not self._networks[network]:
            del self._networks[network]
        return key
