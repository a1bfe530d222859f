"""The only endpoint that institutions reach: TLS, members only, Flower's Fleet API only.

Flower's SuperLink serves three interfaces at one place; its Control interface has no
authentication. So the SuperLink listens at a unix socket of this user, and the gate forwards only
the calls that a member's SuperNode may make. It reads the members' file for every request, so a
revoked site is refused at once. Before it reads a body it checks that the request is signed by a
member's key; the SuperLink checks that again, with the signature's time. A request's content is
checked before the SuperLink sees it (`gate_calls`), and every connection has limits of number and
time (`gate_connection`).
"""

from __future__ import annotations

import gc
import json
import logging
import ssl
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import uvicorn

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.gate_authenticator import MemberAuthenticator
from cloister.deployment.coordinator.gate_book import Book
from cloister.deployment.coordinator.gate_connection import HEAD_BYTES, IDLE, protocol_of
from cloister.deployment.coordinator.gate_forward import MOST_LINKS, Gate, make_gate
from cloister.deployment.coordinator.gate_keeper import Gatekeeper
from cloister.deployment.coordinator.gate_places import Places
from cloister.deployment.coordinator.gate_polls import Polls
from cloister.deployment.coordinator.gate_rates import Rates
from cloister.deployment.coordinator.open_files import raise_open_files
from cloister.deployment.coordinator.pushed import KnownMarks
from cloister.deployment.coordinator.reply_size import Largest
from cloister.deployment.logs import log_json
from cloister.files import write_whole

log = logging.getLogger(__name__)

# Places for connections: a stranger holds one for a handshake and a request's head, far below a
# second, so 256 places serve several hundred newcomers per second; 64 of them may come from one
# address, as many members may share it. A SuperNode has up to four connections, for which 1,024
# members have places, or 256 members with 16 each.
STRANGERS, PER_NETWORK, MEMBERS, PER_MEMBER = 256, 64, 4096, 16
# Connections that asyncio accepts before the gate checks for a place.
BACKLOG = 256
# Open files besides connections: libraries, logs, the members' file, and files being closed.
SPARE = 256
# Ciphers for TLS 1.2: authenticated, with forward secrecy; TLS 1.3 has its own list.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Seconds between writes of the times at which sites were seen.
SEEN_EVERY = 1.0


class Seen:
    """A file with the time of each site's last request.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sites: dict[str, dict[str, Any]] = {}
        self._written = 0.0

    def __call__(self, site: str, size: int) -> None:
        """Counts a request of a member and logs it."""
        entry = self._sites.setdefault(site, {"bytes": 0})
        entry["bytes"] += size
        entry["seen"] = datetime.now(UTC).isoformat(timespec="seconds")
        if time.monotonic() - self._written > SEEN_EVERY:
            self._written = time.monotonic()
            try:
                write_whole(self._path, json.dumps(self._sites).encode())
            except OSError as error:
                log.warning("the time of a site's last contact cannot be written: %s", error)


def places_within(files: int) -> Places:
    """The numbers of places for a limit of open files. If it is low, members' places are reduced
    first, because a member needs a stranger's place to come in.

    Args:
        files: Files that this process may have open.
    """
    left = files - STRANGERS - BACKLOG - MOST_LINKS - SPARE
    members = max(PER_MEMBER, min(MEMBERS, left))
    if members < MEMBERS:
        log.error(
            "%d open files are allowed and %d are needed: members have %d places in place of %d; "
            "raise the hard limit (ulimit -Hn, LimitNOFILE in the service's unit)",
            files,
            files_needed(),
            members,
            MEMBERS,
        )
    return Places(STRANGERS, PER_NETWORK, members, PER_MEMBER)


def files_needed() -> int:
    """Returns how many files are open when every place is taken."""
    return STRANGERS + MEMBERS + BACKLOG + MOST_LINKS + SPARE


def tls_of(folder: ServerFolder) -> ssl.SSLContext:
    """Makes the TLS settings of the endpoint, without renegotiation."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.load_cert_chain(folder.path / "endpoint.crt", folder.path / "endpoint.key")
    return context


def make_server(folder: ServerFolder) -> uvicorn.Server:
    """Makes the gate of a coordinator's folder, with its endpoint's certificate."""
    places = places_within(raise_open_files(files_needed()))
    gatekeeper = Gatekeeper(places, Rates())
    gate = Gate(
        MemberAuthenticator(folder.members, lambda: datetime.now(UTC)),
        Book(folder.state / "asked"),
        Largest(folder.largest),
        Seen(folder.state / "seen.json"),
        Polls(KnownMarks(folder.pushed)),
    )
    host, port = folder.config.place
    config = uvicorn.Config(
        make_gate(gate, folder.superlink),
        host=host,
        port=port,
        # asyncio's loop, not uvloop: the gatekeeper starts and ends TLS itself (`Handshake`), which
        # uvloop does not allow.
        http=cast(Any, protocol_of(gatekeeper, tls_of(folder))),
        loop="asyncio",
        ws="none",
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=3,
        proxy_headers=False,
        access_log=False,
        server_header=False,
        log_config=None,
    )
    return uvicorn.Server(config)


if __name__ == "__main__":
    log_json("gate")
    server = make_server(ServerFolder.open(Path(sys.argv[1])))
    gc.freeze()  # libraries' objects stay for good: the collector need not look at them again
    server.run()
