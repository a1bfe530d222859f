"""Checks step by step whether a site reaches its coordinator.

Name, port, TLS, clock, version, membership; or a proxy in place of the first three. Each step needs
the one before it; the first that fails shows the cause.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

import httpx
from cryptography import x509

from cloister import __version__
from cloister.deployment.enrolment.address import split_address
from cloister.deployment.enrolment.node_key import load_node_key, public_pem
from cloister.deployment.proxies import proxy_for
from cloister.deployment.site.joining import SiteMembership

# Seconds for one step; a connection that takes longer will not carry a round's messages.
PATIENCE = 10.0
# Seconds for a check of the port alone, while a person waits.
GLANCE = 3.0
# Flower refuses a node's signature if its time is off by more than 300 s; differences up to one
# minute do not confuse readers of logs.
MOST_SKEW, FLOWERS_SKEW = 60.0, 300.0


@dataclass(frozen=True)
class Attempt:
    """The outcome of one step on the way to the coordinator.

    Attributes:
        name: The step's name.
        fine: Whether it succeeded.
        detail: What was found.
        remedy: What to do; empty if it succeeded.
        blocks: Whether a site cannot take part without it.
    """

    name: str
    fine: bool
    detail: str
    remedy: str = ""
    blocks: bool = True


def reach(membership: SiteMembership) -> Iterator[Attempt]:
    """Tries the steps in turn, and ends after the first that blocks.

    Args:
        membership: The site's.

    Raises:
        BadFileError: The site has joined no federation.
    """
    host, port = split_address(membership.invite.address, "address")
    context = ssl.create_default_context(cafile=str(membership.authority))
    proxy = proxy_for(host)
    if proxy is not None:
        yield Attempt("proxy", True, f"{proxy}, by this environment")
    else:
        for step in _connection(host, port, context):
            yield step
            if not step.fine:
                return
    key = base64.b64encode(public_pem(load_node_key(membership.node_key)).encode()).decode()
    try:
        answer = httpx.post(
            f"https://{host}:{port}/v1/fleet/send-node-heartbeat",
            content=b"",
            headers={"flwr-public-key": key, "content-type": "application/protobuf"},
            verify=context,
            timeout=PATIENCE,
            trust_env=proxy is not None,
        )
    except httpx.HTTPError as error:
        yield Attempt(
            "gate",
            False,
            f"{host}:{port}: {error}",
            "configure the proxy to pass this address without inspection"
            if proxy
            else "ask the coordinator",
        )
        return
    yield from _said(answer)


def unreached(membership: SiteMembership, patience: float = GLANCE) -> Attempt | None:
    """Describes what prevents any connection to the coordinator's address; None: nothing.

    It only looks up the name and opens the port, so it may run every minute and costs the
    coordinator no TLS handshake. Behind a proxy it checks nothing.

    Args:
        membership: The site's.
        patience: Seconds for the connection.

    Raises:
        BadFileError: The site has joined no federation.
    """
    host, port = split_address(membership.invite.address, "address")
    if proxy_for(host) is not None:
        return None
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return _no_name(host, error)
    try:
        socket.create_connection((host, port), patience).close()
    except OSError as error:
        return _no_port(host, port, error)
    return None


def _no_name(host: str, error: OSError) -> Attempt:
    return Attempt("name", False, f"{host}: {error}", "check the DNS, or the proxy's settings")


def _no_port(host: str, port: int, error: OSError) -> Attempt:
    return Attempt(
        "port",
        False,
        f"{host}:{port}: {error}",
        "ask the coordinator whether it is running; allow this one port, outbound",
    )


def _connection(host: str, port: int, context: ssl.SSLContext) -> Iterator[Attempt]:
    """Checks name, port and TLS, without a proxy."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield _no_name(host, error)
        return
    yield Attempt("name", True, f"{host} is {found[0][4][0]}")
    try:
        with socket.create_connection((host, port), PATIENCE) as plain:
            yield Attempt("port", True, f"{host}:{port} answers")
            with context.wrap_socket(plain, server_hostname=host) as secured:
                shown = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        yield Attempt(
            "TLS",
            False,
            f"{host}:{port}: {error.verify_message}",
            "a proxy inspects TLS, or this is not your coordinator: have the "
            "address exempted, or ask the coordinator about its certificate",
        )
        return
    except ssl.SSLError as error:
        yield Attempt(
            "TLS",
            False,
            f"{host}:{port}: {error}",
            "the program that answers there does not use TLS; ask the coordinator for its address",
        )
        return
    except OSError as error:
        yield _no_port(host, port, error)
        return
    until = x509.load_der_x509_certificate(shown or b"").not_valid_after_utc
    yield Attempt("TLS", True, f"the coordinator's own certificate, valid until {until:%Y-%m-%d}")


def _said(answer: httpx.Response) -> Iterator[Attempt]:
    """Reads the gate's answer: clock, version and membership."""
    stamp = answer.headers.get("date")
    if stamp:
        skew = abs((datetime.now(UTC) - parsedate_to_datetime(stamp)).total_seconds())
        yield Attempt(
            "clock",
            skew <= MOST_SKEW,
            f"{skew:.0f} s from the coordinator's",
            "" if skew <= MOST_SKEW else "set the clock (NTP)",
            blocks=skew > FLOWERS_SKEW,
        )
    theirs = answer.headers.get("cloister-version", "")
    same = theirs.split(".")[:2] == __version__.split(".")[:2]
    yield Attempt(
        "version",
        same,
        f"cloister {__version__} here, {theirs or 'unknown'} at the coordinator",
        "" if same else "install the coordinator's version",
    )
    known = answer.headers.get("cloister-member")
    yield Attempt(
        "membership",
        known is not None,
        f"known as {unquote(known or '')}" if known else "not known there",
        ""
        if known
        else "not approved yet, revoked or expired: ask the coordinator, then cloister site join",
    )
