"""Closes a connection that does not send the whole head of a request in time.

uvicorn waits for a head without a limit, and connecting needs no token. So a few hundred silent
connections would use up all that the service accepts (`running.MOST_CONNECTIONS`).
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds to send a request's head. A caller usually sends it in one packet.
HEAD_SECONDS = 10.0


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with a time limit for the head of each request."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer for the first request's head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Receives bytes; the first bytes of a later request start the timer again."""
        if self._head is None and self.conn.their_state is h11.IDLE:
            self._await_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timer when the connection is closed."""
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self._cut_off)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _cut_off(self) -> None:
        self._head = None
        self.transport.close()
