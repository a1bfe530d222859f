"""Checks where drift figures and alerts go: to this machine, or to hosts that are named twice.

Such figures are computed from private records, and no noise is added to them. So a host outside of
this machine must be in the address and in `outside_hosts`: a typing mistake sends them nowhere.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloister.bounds import shortened
from cloister.errors import UsageError

# The reason in every message about figures that leave this machine.
NOT_NOISED = (
    "drift figures and alerts are computed from private records, and no noise is added to them"
)


@dataclass(frozen=True)
class HostPort:
    """A host name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_this_machine(host: str) -> bool:
    """Returns whether a host is a loopback address or `localhost`; no name is looked up."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(text: str, field: str) -> HostPort:
    """Reads `host:port`, or `[host]:port` for IPv6.

    Raises:
        UsageError: The text has another form.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.path or parts.username is not None:
        raise UsageError(
            f"{field}: {shortened(text)} given; host:port is needed, such as 127.0.0.1:9470"
        )
    return HostPort(host, port)


def webhook_host(url: str, field: str) -> str:
    """Returns the host of a webhook's address.

    Raises:
        UsageError: It is not an http or https address, or has a user or password in it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or not url.isascii():
        raise UsageError(f"{field}: {shortened(url)} given; an http or https address is needed")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{field}: an address with a user or password given; leave them out")
    return host


def check_host(host: str, outside: tuple[str, ...], field: str) -> None:
    """Refuses a host outside of this machine that `outside_hosts` does not name.

    Raises:
        UsageError: It is refused.
    """
    if not is_this_machine(host) and host.casefold() not in {one.casefold() for one in outside}:
        raise UsageError(
            f"{field}: {shortened(host)} is not this machine, and {NOT_NOISED}. If they may go "
            f"there, write outside_hosts = [{shortened(host)}] in [alerts]"
        )
