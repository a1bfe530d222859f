"""A proxy on loopback that records the bytes sent to it, and the variables that name it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

PROXIES = tuple(
    name for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (base, base.lower())
)


@dataclass
class Recorder:
    """Takes connections, keeps the first bytes of each, and answers none.

    Attributes:
        port: At which it listens.
        seen: What came, a connection each; empty bytes where nothing was said.
    """

    port: int
    seen: list[bytes] = field(default_factory=list)


@contextmanager
def recording_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """In every variable that names a proxy, of this process and of those that it starts."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        made = Recorder(server.getsockname()[1])
        thread = threading.Thread(target=_record, args=(server, made), daemon=True)
        thread.start()
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{made.port}")
        yield made
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _record(server: socket.socket, made: Recorder) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # over
            return
        with connection:
            connection.settimeout(2)
            try:
                made.seen.append(connection.recv(65536))
            except OSError:
                made.seen.append(b"")
