"""A web application on a port of this machine, in a thread of the test."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Message
from uvicorn.protocols.http.h11_impl import H11Protocol


@contextmanager
def on_a_port(app: ASGIApp, http: type[H11Protocol] = H11Protocol) -> Iterator[str]:
    """Serves until its block ends; connections wait in the socket while the server starts."""
    place = socket.create_server(("127.0.0.1", 0))
    # uvicorn's own log settings would close every handler, and absl's (which rouge-score brings)
    # closes a stderr that a test has captured.
    config = uvicorn.Config(
        app, http=http, log_config=None, log_level="error", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        place.close()


def cut_off(app: ASGIApp, path: str, headers: dict[str, str] | None = None) -> int:
    """Posts a body that is cut off midway, and returns the status that an application gives it.

    An exception of the application passes through: a server would log it with its traceback.
    """
    sent: list[Message] = []
    left = [{"type": "http.request", "body": b'{"at": ', "more_body": True}]
    given = {"host": "127.0.0.1:1", "content-type": "application/json", **(headers or {})}

    async def receive() -> Message:
        return left.pop() if left else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])
