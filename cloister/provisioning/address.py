"""Network addresses as people write them."""

from __future__ import annotations

from cloister.errors import UsageError


def split_address(address: str, name: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        UsageError: It is of another form.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{name}: {address!r} given; host:port is needed, as in fed.example.org:9443"
        )
    return host, int(port)
