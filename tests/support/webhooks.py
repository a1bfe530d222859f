"""A webhook on loopback that answers as a test wants, and remembers what it got."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OK = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"


class Webhook:
    """A receiver; `answer` may be changed while it runs, and None hangs."""

    def __init__(self, answer: bytes | None = OK) -> None:
        self.answer = answer
        self.alerts: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._place = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._place.getsockname()[1]}/alerts"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._place.accept()
            except OSError:  # closed
                return
            self._open.append(connection)
            with contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        content = b""
        while b"\r\n\r\n" not in content:
            content += connection.recv(65536)
        head, _, body = content.partition(b"\r\n\r\n")
        headers = dict(
            line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line
        )
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65536)
        self.alerts.append(json.loads(body))
        self.keys.append(headers["idempotency-key"])
        if self.answer is not None:
            connection.sendall(self.answer)
            connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends it."""
        self._place.close()
        for one in self._open:
            one.close()


@contextmanager
def webhook(answer: bytes | None = OK) -> Iterator[Webhook]:
    """A receiver for the time of the context."""
    found = Webhook(answer)
    try:
        yield found
    finally:
        found.close()
