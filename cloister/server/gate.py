"""The one door that institutions reach: TLS, members only, and of Flower's interfaces the Fleet's.

Flower's SuperLink serves three interfaces at one place; its Control interface belongs to whoever
reaches it. So it listens at a unix socket of this user's, and this process forwards to it what a
member's SuperNode may say. Who a member is, it reads anew for every request: a revoked site is
refused at once. That a request comes from the holder of a member's key, it checks before it reads
the body; the SuperLink checks it again, with the signature's time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cloister import __version__
from cloister.errors import BadFileError
from cloister.files import write_whole
from cloister.flower.sockets import BASE_URL, AsyncSocketTransport
from cloister.logs import log_json
from cloister.provisioning.node_key import is_node_signed
from cloister.server.folder import ServerFolder
from cloister.server.members import connecting, read_members

log = logging.getLogger(__name__)

# What a SuperNode with a registered key asks for; registering and unregistering are the
# coordinator's own.
CALLS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
    "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
# Flower cuts messages into objects of 5 MB; a request with one of them stays far below.
LARGEST_BODY = 16_000_000
# Connections at a time: 50 sites with a heartbeat, a poll and a few objects each, and room for
# strangers, who are let go after one refusal.
MOST_CONNECTIONS = 512
# Seconds for the SuperLink to answer, which writes to a local disk; and for a site to send a
# request's body, 16 MB in which are 2 Mbit/s.
PATIENCE = 60.0
# Seconds in which a new connection's first request begins; whoever says nothing holds no place.
FIRST_REQUEST = 15.0
# TLS 1.3 has its own; of TLS 1.2 only what is authenticated and keeps old traffic secret.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Seconds between writes of who was seen.
SEEN_EVERY = 1.0
KEY_HEADER, SIGNATURE_HEADER, TIME_HEADER = "flwr-public-key", "flwr-signature", "flwr-timestamp"
VERSION = {"cloister-version": __version__}
PASSED_ON = ("content-type", "accept")


class Door:
    """Who may pass, from the members' file as it is now.

    Args:
        members: The file.
        now: The present time.
    """

    def __init__(self, members: Path, now: Callable[[], datetime]) -> None:
        self._members, self._now = members, now
        self._stamp: tuple[int, int, int] | None = None
        self._keys: Mapping[str, str] = {}
        self._until: datetime | None = None

    def site_of(self, header: str) -> str | None:
        """The member whose key a request shows; None: nobody's."""
        try:
            key = base64.b64decode(header, validate=True).decode()
        except ValueError:
            return None
        return self._current().get(key)

    def _current(self) -> Mapping[str, str]:
        now = self._now()
        try:
            state = self._members.stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
            if stamp != self._stamp or (self._until is not None and now >= self._until):
                allowed = connecting(read_members(self._members), now)
                self._keys = {member.node_key: site for site, member in allowed.items()}
                ends = (datetime.fromisoformat(member.expires) for member in allowed.values())
                self._until = min(ends, default=None)
                self._stamp = stamp
        except (OSError, BadFileError) as error:
            log.error("nobody is let in: %s", error)
            return {}
        return self._keys


def make_gate(door: Door, superlink: Path, seen: Callable[[str, int], None]) -> Starlette:
    """The gate as an ASGI application.

    Args:
        door: Who may pass.
        superlink: The SuperLink's socket.
        seen: Told of each member's request and its bytes.
    """
    link: dict[str, httpx.AsyncClient] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        async with httpx.AsyncClient(
            base_url=BASE_URL,
            transport=AsyncSocketTransport(superlink),
            timeout=PATIENCE,
            trust_env=False,
        ) as client:
            link["client"] = client
            yield

    async def forward(request: Request) -> Response:
        headers = passed_on(request)
        if headers is None:
            return _refusal(400, "a header stands there twice")
        site = door.site_of(headers.get(KEY_HEADER, ""))
        if site is None:
            return _refusal(401, "this key is no member's: not approved, revoked or over")
        if not _holds_its_key(headers):
            return _refusal(401, "not signed by the key that it shows", site)
        call = request.path_params["call"]
        if call not in CALLS:
            return _refusal(404, "not for sites")
        try:
            async with asyncio.timeout(PATIENCE):
                body = await _body_of(request)
        except TimeoutError:
            return _refusal(408, f"not all of it came in {PATIENCE:g} s", site)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _refusal(413, f"more than {LARGEST_BODY} bytes", site)
        seen(site, len(body))
        try:
            answer = await link["client"].post(f"/v1/fleet/{call}", content=body, headers=headers)
        except httpx.HTTPError:
            return _refusal(503, "the coordinator's SuperLink is away; it is started again")
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name == "content-type" or name.startswith("flwr-")
        }
        return Response(answer.content, answer.status_code, {**kept, **_told(site)})

    app = Starlette(
        routes=[Route("/v1/fleet/{call}", forward, methods=["POST"])], lifespan=lifespan
    )
    app.router.redirect_slashes = False
    return app


def passed_on(request: Request) -> dict[str, str] | None:
    """The headers that the SuperLink gets; None where one of them stands there twice: gate and
    SuperLink might each look at another."""
    pairs = [
        (name, value)
        for name, value in request.headers.items()
        if name in PASSED_ON or name.startswith("flwr-")
    ]
    return dict(pairs) if len(dict(pairs)) == len(pairs) else None


def _holds_its_key(headers: Mapping[str, str]) -> bool:
    """Whether the key that a request shows signed its time, as Flower's nodes do."""
    try:
        key = base64.b64decode(headers[KEY_HEADER], validate=True).decode()
        signature = base64.b64decode(headers[SIGNATURE_HEADER], validate=True)
        return is_node_signed(headers[TIME_HEADER].encode(), signature, key)
    except (KeyError, ValueError):
        return False


async def _body_of(request: Request) -> bytes | None:
    """A request's body; None where it is too large, which is known before all of it is read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


def _told(site: str) -> dict[str, str]:
    """Headers of every answer to a member."""
    return {**VERSION, "cloister-member": quote(site, safe=" ")}


def _refusal(code: int, why: str, site: str | None = None) -> Response:
    """Says why, and ends the connection: whoever is refused keeps no place."""
    headers = {**(VERSION if site is None else _told(site)), "connection": "close"}
    return Response(json.dumps({"detail": why}), code, headers, media_type="application/json")


class PromptProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP that closes connections on which no request begins."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts to wait."""
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Seen:
    """When each site was last heard of, in a file for whoever asks.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sites: dict[str, dict[str, Any]] = {}
        self._written = 0.0

    def __call__(self, site: str, size: int) -> None:
        """Notes a request."""
        entry = self._sites.setdefault(site, {"bytes": 0})
        entry["bytes"] += size
        entry["seen"] = datetime.now(UTC).isoformat(timespec="seconds")
        if time.monotonic() - self._written > SEEN_EVERY:
            self._written = time.monotonic()
            try:
                write_whole(self._path, json.dumps(self._sites).encode())
            except OSError as error:
                log.warning("who was seen cannot be noted: %s", error)


def make_server(folder: ServerFolder) -> uvicorn.Server:
    """The gate of a coordinator's folder, behind its endpoint's certificate."""
    door = Door(folder.members, lambda: datetime.now(UTC))
    app = make_gate(door, folder.superlink, Seen(folder.state / "seen.json"))
    host, port = folder.config.place
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=str(folder.path / "endpoint.crt"),
        ssl_keyfile=str(folder.path / "endpoint.key"),
        ssl_ciphers=CIPHERS,
        http=PromptProtocol,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
        proxy_headers=False,
        access_log=False,
        server_header=False,
        log_config=None,
    )
    return uvicorn.Server(config)


if __name__ == "__main__":
    log_json("gate")
    make_server(ServerFolder.open(Path(sys.argv[1]))).run()
