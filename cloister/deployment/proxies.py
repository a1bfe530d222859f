"""Keeps calls to loopback away from the environment's proxies.

httpx, requests and urllib read `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` in either case, and send
calls to 127.0.0.1 to them too unless `NO_PROXY` names it. A call on loopback has tokens and secrets
that no proxy may see, and no proxy can reach this machine's loopback anyway.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

# Names that httpx, requests and urllib compare with a URL's host; none of them knows 127.0.0.0/8.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def sparing_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment whose proxies are not used for loopback; its own exceptions stay.

    Both spellings of `NO_PROXY` get the same value, because libraries use either one.
    """
    given = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    names = [name.strip() for text in given for name in text.split(",")]
    merged = ",".join(dict.fromkeys(name for name in (*names, *LOOPBACK) if name))
    return {**environment, "no_proxy": merged, "NO_PROXY": merged}


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's loopback; names are not looked up."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def proxy_for(host: str) -> str | None:
    """The proxy through which this process reaches a host over TLS; None: directly."""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get("https") or proxies.get("all")
