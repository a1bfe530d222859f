"""A connection whose requests must begin: who sends no whole head in time is cut off.

uvicorn waits for a head for ever, so that a few hundred silent connections, for which nobody needs
a token, would be all that a service takes (`running.MOST_CONNECTIONS`).
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds for a request's head, which a caller sends in one piece.
HEAD_SECONDS = 10.0


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit of time for each request's head."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called when a connection is there; a head must follow."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; the first ones of a further request begin its time."""
        if self._head is None and self.conn.their_state is h11.IDLE:
            self._await_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees the timer."""
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
