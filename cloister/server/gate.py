"""The one door that institutions reach: TLS, members only, and of Flower's interfaces the Fleet's.

Flower's SuperLink serves three interfaces on one port; its Control and Runtime interfaces belong to
whoever reaches them. So it listens on loopback, and this process forwards to it what a member's
SuperNode may say. Who a member is, it reads anew for every request: a revoked site is refused at
once.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from cloister import __version__
from cloister.errors import BadFileError
from cloister.files import write_whole
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
# Requests at a time: 50 sites with a heartbeat, a poll and an object each, and room.
MOST_REQUESTS = 256
# Seconds for the SuperLink to answer; it writes to a local disk.
PATIENCE = 60.0
# Seconds between writes of who was seen.
SEEN_EVERY = 1.0
KEY_HEADER = "flwr-public-key"
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
        self._stamp: tuple[int, int] | None = None
        self._keys: Mapping[str, str] = {}
        self._until = ""

    def site_of(self, header: str | None) -> str | None:
        """The member whose key a request shows; None: nobody's. Whether it holds the key is for
        the SuperLink to say, which checks its signature."""
        try:
            key = base64.b64decode(header or "", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self._current().get(key)

    def _current(self) -> Mapping[str, str]:
        now = self._now()
        try:
            state = self._members.stat()
            stamp = (state.st_mtime_ns, state.st_ino)
            if stamp != self._stamp or now.isoformat() > self._until:
                allowed = connecting(read_members(self._members), now)
                self._keys = {member.node_key: site for site, member in allowed.items()}
                self._until = min((m.expires for m in allowed.values()), default="9")
                self._stamp = stamp
        except (OSError, BadFileError) as error:
            log.error("nobody is let in: %s", error)
            return {}
        return self._keys


def make_gate(
    door: Door, superlink: str, authority: Path, seen: Callable[[str, int], None]
) -> Starlette:
    """The gate as an ASGI application.

    Args:
        door: Who may pass.
        superlink: `host:port` of the SuperLink on loopback.
        authority: Certificate that signs the SuperLink's.
        seen: Told of each member's request and its bytes.
    """
    context = ssl.create_default_context(cafile=str(authority))
    link: dict[str, httpx.AsyncClient] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        async with httpx.AsyncClient(
            base_url=f"https://{superlink}", verify=context, timeout=PATIENCE, trust_env=False
        ) as client:
            link["client"] = client
            yield

    async def forward(request: Request) -> Response:
        site = door.site_of(request.headers.get(KEY_HEADER))
        if site is None:
            return _refusal(401, "this key is no member's: not approved, revoked or over")
        call = request.path_params["call"]
        if call not in CALLS:
            return _refusal(404, "not for sites")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    return _refusal(413, f"more than {LARGEST_BODY} bytes")
        except ClientDisconnect:
            return Response(status_code=400)
        seen(site, len(body))
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in PASSED_ON or name.startswith("flwr-")
        }
        try:
            answer = await link["client"].post(
                f"/v1/fleet/{call}", content=bytes(body), headers=headers
            )
        except httpx.HTTPError:
            return _refusal(503, "the coordinator's SuperLink is away; it is started again")
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name == "content-type" or name.startswith("flwr-")
        }
        told = {**VERSION, "cloister-member": site}
        return Response(answer.content, answer.status_code, {**kept, **told})

    return Starlette(
        routes=[Route("/v1/fleet/{call}", forward, methods=["POST"])], lifespan=lifespan
    )


def _refusal(code: int, why: str) -> Response:
    body = json.dumps({"detail": why})
    return Response(body, code, VERSION, media_type="application/json")


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
            write_whole(self._path, json.dumps(self._sites).encode())


def main(folder: ServerFolder) -> None:
    """Serves until it is told to end."""
    door = Door(folder.members, lambda: datetime.now(UTC))
    app = make_gate(door, folder.superlink, folder.certificate, Seen(folder.state / "seen.json"))
    host, port = folder.config.place
    uvicorn.run(
        app,
        host=host,
        port=port,
        ssl_certfile=str(folder.path / "endpoint.crt"),
        ssl_keyfile=str(folder.path / "endpoint.key"),
        limit_concurrency=MOST_REQUESTS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
        access_log=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(ServerFolder.open(Path(sys.argv[1])))
