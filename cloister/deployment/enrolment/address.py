"""Parses `host:port` addresses and host names."""

from __future__ import annotations

import ipaddress
import re

from cloister.bounds import shortened
from cloister.errors import UsageError

# A part of a host name by RFC 1123, and underscores, which some local names have. Names in other
# scripts must be in their ASCII form (xn--…).
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LONGEST_HOST = 253
# The highest port, 65535, has five digits.
PORT = re.compile("[0-9]{1,5}")


def split_address(address: str, name: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 address must be in brackets.

    Raises:
        UsageError: The address has another form.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (
        not colon
        or not is_host(host)
        or bracketed != (":" in host)
        or not PORT.fullmatch(port)
        or not 0 < int(port) < 65536
    ):
        raise UsageError(
            f"{name}: {shortened(address)} given; host:port is needed, as in fed.example.org:9443"
        )
    return host, int(port)


def is_host(text: str) -> bool:
    """Whether a text is a DNS name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= LONGEST_HOST and HOST.fullmatch(text) is not None
    return "%" not in text  # without a zone, which differs between machines
