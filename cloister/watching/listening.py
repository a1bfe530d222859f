"""Serves a watch over HTTP to this machine only: metrics, page, report, and rows by POST."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from socket import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.dashboard.access import OWN_NAMES
from cloister.watching.parsing import MOST_LINE
from cloister.watching.shown import Shown
from cloister.watching.source import LineBatch

# Largest body of a request in bytes, and most requests that wait.
MOST_BODY, WAITING = 8 * 2**20, 64
# Most seconds until a body has arrived, and until its rows are in the state.
SECONDS = 30.0
# The status of a request whose caller left (nginx's); it is sent to nobody.
LEFT = 499
# A POST that ended before its body did; nobody is left to answer.
CUT_OFF = "a POST was cut off before the end of its body; none of its rows was taken"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class PostedRows:
    """A source of posted rows; a request is answered once its rows are in the state on disk."""

    def __init__(self) -> None:
        self._bodies: queue.Queue[LineBatch] = queue.Queue(WAITING)
        self._lines = 0

    def read(self, seconds: float) -> LineBatch:
        """Returns the next lines; see `PredictionSource`."""
        try:
            return self._bodies.get(timeout=seconds)
        except queue.Empty:
            return LineBatch()

    def close(self) -> None:
        """Does nothing: the listener is closed separately."""

    def put(self, body: bytes, kept: Callable[[int, Mapping[str, int]], None]) -> bool:
        """Takes a body of lines, numbered over all bodies; returns False if too many wait."""
        lines = body.split(b"\n")
        first = self._lines + 1
        numbered = tuple(
            (first + n, None if len(line) > MOST_LINE else line)
            for n, line in enumerate(lines)
            if line.strip()
        )
        try:
            self._bodies.put_nowait(LineBatch(numbered, kept=kept))
        except queue.Full:
            return False
        self._lines += len(lines)
        return True

    def note(self, notice: str) -> None:
        """Tells the operator something, unless too many requests wait."""
        with suppress(queue.Full):
            self._bodies.put_nowait(LineBatch(notices=(notice,)))


class _Guard:
    """Answers only requests to this machine's own names, and only bodies that are declared as JSON.

    A page of another web site could otherwise reach the watch under its own name (DNS rebinding),
    or post a form, which cannot declare JSON.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await (_refusal(scope) or self._app)(scope, receive, send_on)


def _refusal(scope: Scope) -> Response | None:
    headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
    host = headers.get("host", "")
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    if name not in OWN_NAMES:
        return _failed(421, "not a name of this machine")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if scope["method"] == "POST" and kind not in ("application/json", "application/x-ndjson"):
        return _failed(415, "content-type: application/json or application/x-ndjson is needed")
    return None


def make_app(shown: Shown, rows: PostedRows | None) -> ASGIApp:
    """Makes the web application.

    Args:
        shown: The documents that are shown.
        rows: The source that takes posted rows; None: posts are refused.
    """

    async def metrics(request: Request) -> Response:
        return Response(shown.read()[0], media_type=METRICS)

    async def page(request: Request) -> Response:
        return Response(shown.read()[1], media_type="text/html; charset=utf-8")

    async def report(request: Request) -> Response:
        return Response(shown.read()[2], media_type="application/json")

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def post(request: Request) -> Response:
        assert rows is not None
        return await _take(rows, request)

    routes = [
        Route("/metrics", metrics),
        Route("/", page),
        Route("/report.json", report),
        Route("/healthz", health),
    ]
    if rows is not None:
        routes.append(Route("/v1/predictions", post, methods=["POST"]))
    return _Guard(Starlette(routes=routes))


async def _take(rows: PostedRows, request: Request) -> Response:
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY:
                    return _failed(413, f"more than {MOST_BODY} bytes; send less at a time")
    except ClientDisconnect:
        rows.note(CUT_OFF)
        return Response(status_code=LEFT)
    except TimeoutError:
        return _failed(408, f"the body did not arrive within {SECONDS:g} seconds; send it again")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[int, dict[str, int]]] = loop.create_future()

    def kept(count: int, refused: Mapping[str, int]) -> None:
        def tell() -> None:
            if not answer.done():
                answer.set_result((count, dict(refused)))

        loop.call_soon_threadsafe(tell)

    if not rows.put(bytes(body), kept):
        return _failed(429, "too many requests wait; try again later")
    try:
        async with asyncio.timeout(SECONDS):
            count, refused = await answer
    except TimeoutError:
        return _failed(
            503,
            "the rows are not stored yet, but may be soon; check the report before a repetition",
        )
    return JSONResponse({"rows": count, "refused": refused})


def _failed(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


class Listener:
    """Serves an application in a thread until it is closed.

    Args:
        app: The application.
        place: A listening socket.
    """

    def __init__(self, app: ASGIApp, place: socket) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            server_header=False,
            log_config=None,  # uvicorn's own would replace the handlers of the whole process
            log_level="warning",
            timeout_graceful_shutdown=3,
            limit_concurrency=64,
            lifespan="off",
            ws="none",
        )
        self._server = uvicorn.Server(config)
        # Signals are the main thread's, so uvicorn installs no handlers in this one.
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [place]}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends the server after running requests are answered."""
        self._server.should_exit = True
        self._thread.join(5)
