"""A connection to the gate: its place, its TLS handshake and its requests, each within bounds.

uvicorn implements HTTP (h11) and asyncio TLS; this module decides when a connection is cut off. A
connection that misses the time limit of its next step is aborted, because a regular close would
wait for the other side again.

    TCP --place--> TLS handshake --10 s--> request's head --15 s, 16 kB--> body --> answer --> idle
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloister.deployment.coordinator.gate_keeper import Gatekeeper

log = logging.getLogger(__name__)

# Time limits in seconds: for a TLS handshake (two round trips); for a request's head (1 kB); for
# reading the end of an answer before a close; for a member's pause between two requests.
HANDSHAKE, HEAD, FAREWELL, IDLE = 10, 15.0, 5, 75
# Most bytes of an incomplete head, chunk or trailer that h11 keeps.
HEAD_BYTES = 16_384
# Most bytes that are read at a time, and that wait to be sent. With asyncio's defaults of 256 kB
# and 512 kB, a connection would use 0.8 MB.
READ_AT_ONCE, UNSENT = 65_536, 65_536


class Conversation(H11Protocol):
    """One connection's HTTP requests and answers, each bounded.

    Attributes:
        site: The member that uses the connection; "" for a stranger.
        most: Most bytes of a request's body that will be read.
    """

    def __init__(self, gatekeeper: Gatekeeper, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._gatekeeper = gatekeeper
        self._answer = self.app
        self.app = self._introduced
        self.site, self.most = "", 0
        self._received = 0
        self._head: asyncio.TimerHandle | None = None

    async def _introduced(self, scope: Any, receive: Any, send: Any) -> None:
        """Calls the application with the connection of the request."""
        await self._answer({**scope, "connection": self}, receive, send)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called when TLS is established; a request's head must follow."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(UNSENT)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request and counts them."""
        self._received += len(data)
        if self._received > self.most + HEAD_BYTES + READ_AT_ONCE:
            self.abort("more bytes than a request may have")
            return
        if self.conn.their_state is h11.IDLE and self._head is None:
            self._await_head()
        try:
            super().data_received(data)
        except Exception as error:  # what a stranger sends may end only its own connection
            self.abort(f"{type(error).__name__} while its bytes were parsed")
            return
        self._look_for_head()

    def on_response_complete(self) -> None:
        """After an answer: waits for a member's next request, or ends a stranger's connection."""
        self._received = 0
        if not self.site:
            self.transport.close()
            return
        super().on_response_complete()
        self._look_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees what the connection held."""
        self._head_came()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def timeout_keep_alive_handler(self) -> None:
        """Ends the connection of a member that is silent or does not read its answer."""
        self.abort("silent")

    def belongs_to(self, site: str) -> bool:
        """Notes that a member uses this connection; returns whether it may have one more."""
        if self._gatekeeper.belongs(self, site):
            self.site = site
            return True
        return False

    def is_strangers(self) -> None:
        """Notes that the other side is not a member, or no longer one."""
        self.site = ""

    def abort(self, why: str) -> None:
        """Cuts the connection off."""
        log.debug("a connection is cut off: %s", why)
        if self.transport is not None:
            self.transport.abort()

    def _look_for_head(self) -> None:
        """Sets the time limit for the rest of a head; no limit while a request is being
        answered."""
        if self.conn.their_state is not h11.IDLE:
            self._head_came()
        elif self._head is None and self.conn.trailing_data[0]:
            self._await_head()

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD, self.abort, "its request's head did not come")

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Handshake(SSLProtocol):
    """TLS on one connection, from the moment that it is accepted.

    It is asyncio's own protocol, which `create_server` would make; it is made here so that a
    connection gets a place before its handshake.
    """

    max_size = READ_AT_ONCE

    def __init__(
        self, gatekeeper: Gatekeeper, context: ssl.SSLContext, conversation: Conversation
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            conversation,
            context,
            cast(Any, None),
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE,
            ssl_shutdown_timeout=FAREWELL,
        )
        self._gatekeeper, self._conversation = gatekeeper, conversation
        self._plain: asyncio.Transport | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._spoke = False

    def buffer_updated(self, nbytes: int) -> None:
        """Takes bytes of the handshake and counts them."""
        self._spoke = True
        super().buffer_updated(nbytes)

    def connection_made(self, transport: Any) -> None:
        """Accepts a connection; it is not read before its turn."""
        self._plain = transport
        transport.pause_reading()
        self._turn = asyncio.get_running_loop().call_later(HANDSHAKE, self.abort)
        peer = transport.get_extra_info("peername")
        if peer:
            self._gatekeeper.admit(self._conversation, str(peer[0]), self.start, self.abort)
        else:  # the other side has closed the connection already
            transport.abort()

    def start(self) -> None:
        """Begins the TLS handshake; the gatekeeper calls this at the connection's turn."""
        self._end_wait()
        if self._plain is not None and not self._plain.is_closing():
            super().connection_made(self._plain)
            self._plain.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Frees what the connection held."""
        self._end_wait()
        self._gatekeeper.left(self._conversation, self._spoke)
        super().connection_lost(exc)

    def _end_wait(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def abort(self) -> None:
        """Cuts the connection off."""
        if self._plain is not None:
            self._plain.abort()


def protocol_of(gatekeeper: Gatekeeper, context: ssl.SSLContext) -> Callable[..., Handshake]:
    """Returns the factory by which uvicorn makes a protocol for each accepted connection.

    Args:
        gatekeeper: Gives places.
        context: For TLS.
    """

    def make(**of_uvicorn: Any) -> Handshake:
        return Handshake(gatekeeper, context, Conversation(gatekeeper, **of_uvicorn))

    return make
