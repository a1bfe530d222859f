"""HTTP over a unix socket for asyncio, with connections that are kept.

httpx's own transport looks at every kept connection at every request, and again at its end, to see
whether one is stale: with sixteen connections that is most of what a call costs the gate. Here a
stack of idle ones is kept, of which the last used is taken; the event loop has noticed if the other
side closed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h11
import httpx

from cloister.deployment.flower.sockets import Place

# Bytes that are read at a time.
PIECE = 65_536


class _Link:
    """One connection.

    Args:
        reader: Its incoming stream.
        writer: Its outgoing stream.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.CLIENT)

    @property
    def is_open(self) -> bool:
        """Whether the other side still reads, as far as the event loop knows."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def send(self, request: httpx.Request) -> None:
        """Sends a request."""
        head = h11.Request(
            method=request.method, target=request.url.raw_path, headers=request.headers.raw
        )
        self._write(head)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for part in request.stream:
            self._write(h11.Data(data=part))
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._state.send(event) or b"")

    async def next(self) -> Any:
        """The next part of the answer.

        Raises:
            h11.RemoteProtocolError: The other side broke off, or does not speak HTTP.
        """
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(await self._reader.read(PIECE))
        return event

    def is_reusable(self) -> bool:
        """Makes the connection ready for a further request, if its last one is over."""
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        return self.is_open

    def close(self) -> None:
        """Closes it."""
        self._writer.close()

    async def closed(self) -> None:
        """Closes it, and waits until that is done."""
        self.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class AsyncSocketTransport(httpx.AsyncBaseTransport):
    """Plain HTTP over a unix socket, for asyncio.

    Args:
        path: The socket's.
        limits: Limits of connections, open and kept.
    """

    def __init__(self, path: Path, limits: httpx.Limits) -> None:
        self._place = Place(path)
        self._limits = limits
        self._idle: list[_Link] = []
        self._used = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and reads its answer's head.

        Raises:
            httpx.HTTPError: There is no answer, or not in time.
        """
        seconds = request.extensions.get("timeout", {}).get("read")
        most = self._limits.max_connections
        if most is not None and self._used >= most:
            raise httpx.PoolTimeout(f"{most} connections are in use")
        self._used += 1
        link: _Link | None = None
        try:
            with _told(request):
                async with asyncio.timeout(seconds):
                    link = self._kept() or _Link(
                        *await asyncio.open_unix_connection(self._place.name, limit=PIECE)
                    )
                    await link.send(request)
                    head = await link.next()
                    while isinstance(head, h11.InformationalResponse):
                        head = await link.next()
        except BaseException:
            self.release(link)
            raise
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_AnswerBody(self, link, request, seconds),
        )

    def _kept(self) -> _Link | None:
        """The last used connection that is still open, if any."""
        while self._idle:
            link = self._idle.pop()
            if link.is_open:
                return link
            link.close()
        return None

    def release(self, link: _Link | None) -> None:
        """Keeps a connection whose request is over, or closes it."""
        self._used -= 1
        if link is None:
            return
        most = self._limits.max_keepalive_connections
        if link.is_reusable() and (most is None or len(self._idle) < most):
            self._idle.append(link)
        else:
            link.close()

    async def aclose(self) -> None:
        """Closes the kept connections."""
        while self._idle:
            await self._idle.pop().closed()


class _AnswerBody(httpx.AsyncByteStream):
    """An answer's body, of which a piece must come in time.

    Args:
        transport: Gets the connection back.
        link: The connection.
        request: The request.
        seconds: For each piece; None: no limit.
    """

    def __init__(
        self,
        transport: AsyncSocketTransport,
        link: _Link,
        request: httpx.Request,
        seconds: float | None,
    ) -> None:
        self._transport, self._request, self._seconds = transport, request, seconds
        self._link: _Link | None = link

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._link is not None
        while True:
            with _told(self._request):
                async with asyncio.timeout(self._seconds):
                    event = await self._link.next()
            if not isinstance(event, h11.Data):
                return
            yield bytes(event.data)

    async def aclose(self) -> None:
        """Gives the connection back; one whose body was not read to its end is closed."""
        link, self._link = self._link, None
        if link is not None:
            self._transport.release(link)


@contextmanager
def _told(request: httpx.Request) -> Iterator[None]:
    """Tells what goes wrong in httpx's words."""
    try:
        yield
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer in time", request=request) from error
    except OSError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except h11.ProtocolError as error:
        raise httpx.RemoteProtocolError(str(error), request=request) from error
