"""A web application on a port of this machine, in a thread of the test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
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
