"""Where drift figures and alerts may go: this machine, and hosts that the watch file names twice.

Such figures are computed from private records, and no noise is added to them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloister.bounds import shortened
from cloister.errors import UsageError

# Said wherever figures leave this machine.
NOT_NOISED = (
    "drift figures and alerts are computed from private records, and no noise is added to them"
)


@dataclass(frozen=True)
class HostPort:
    """A host and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address or `localhost`; other names are never looked up."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(text: str, field: str) -> HostPort:
    """Reads `host:port`, or `[host]:port` of IPv6.

    Raises:
        UsageError: It is something else.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.path or parts.username is not None:
        raise UsageError(f"{field}: {shortened(text)} given; host:port needed, as 127.0.0.1:9470")
    return HostPort(host, port)


def webhook_host(url: str, field: str) -> str:
    """The host of a webhook.

    Raises:
        UsageError: It is no http or https address, or has a password in it.
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
    """Refuses a host beyond this machine that the file does not name as such.

    Raises:
        UsageError: It is refused.
    """
    if not is_this_machine(host) and host.casefold() not in {one.casefold() for one in outside}:
        raise UsageError(
            f"{field}: {shortened(host)} is not this machine, and {NOT_NOISED}. If they may go "
            f"there, write outside_hosts = [{shortened(host)}] in [alerts]"
        )
