"""HTTPS on loopback, served by a thread of the test's own process."""

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from cloister.deployment.flower.sockets import listening


@contextmanager
def served(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> Iterator[None]:
    """Serves until the end of the block, at sockets of the caller's where some are given."""
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    try:
        deadline = time.monotonic() + 600
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(600)
        assert not thread.is_alive()


def https(
    app: Callable[..., Awaitable[None]], port: int, key: Path | None, certificate: Path | None
) -> uvicorn.Server:
    """A server of an ASGI application; without a key it speaks plain HTTP."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            ssl_keyfile=key and str(key),
            ssl_certfile=certificate and str(certificate),
            ws="none",
            log_config=None,
            timeout_graceful_shutdown=1,
            lifespan="off",
        )
    )


@contextmanager
def at_socket(app: Callable[..., Awaitable[None]], path: Path) -> Iterator[None]:
    """Serves an ASGI application at a unix socket until the end of the block."""
    server = https(app, 0, None, None)
    with served(server, [listening(path)]):
        yield


@dataclass
class FakeSuperLink:
    """Answers everything, and keeps what it was asked.

    Attributes:
        asked: Method, path, headers and body of each request.
        said: What it answers, by the last part of the path; else the request's beginning.
        code: Of its answers.
    """

    asked: list[tuple[str, str, dict[str, list[str]], bytes]] = field(default_factory=list)
    said: dict[str, bytes] = field(default_factory=dict)
    code: int = 200

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode(), []).append(value.decode())
        self.asked.append((scope["method"], scope["raw_path"].decode(), headers, body))
        told = [
            (b"content-type", b"application/protobuf"),
            (b"flwr-told", b"yes"),
            (b"server", b"flower"),
        ]
        await send({"type": "http.response.start", "status": self.code, "headers": told})
        call = scope["path"].rpartition("/")[2]
        answer = self.said.get(call, b"answer to " + body[:10])
        await send({"type": "http.response.body", "body": answer})
