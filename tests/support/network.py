"""A network between a site and its coordinator that fails on demand: a TCP forwarder."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Network:
    """Forwards connections to a port; all of them can be cut, stalled or slowed.

    Attributes:
        target: Port on this machine to forward to.
        delay: Seconds that each piece of data waits.
        is_stalled: Nothing is forwarded and nothing is closed: connections are half open.
        connections: How many were made.
    """

    target: int
    delay: float = 0.0
    is_stalled: bool = False
    connections: int = 0
    _open: set[socket.socket] = field(default_factory=set)
    _closed: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection in the middle of whatever it carries."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed.set()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 10)
            except OSError:
                near.close()
                continue
            self.connections += 1
            for one, other in ((near, far), (far, near)):
                self._open.add(one)
                carrier = threading.Thread(target=self._carry, args=(one, other), daemon=True)
                carrier.start()
                self._threads.append(carrier)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay)
                while self.is_stalled and not self._closed.is_set():
                    time.sleep(0.05)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)


@contextmanager
def network(target: int) -> Iterator[Network]:
    """A network to a port."""
    made = Network(target)
    try:
        yield made
    finally:
        made.close()
