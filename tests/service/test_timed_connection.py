"""A connection without a complete head in time is closed; others are kept alive."""

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cloister.service import timed_connection
from cloister.service.timed_connection import TimedConnection
from tests.support.web import on_a_port

SECONDS = 60  # longer than anything here takes on a machine with other work
Heads = Callable[[float], None]


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def address() -> Iterator[str]:
    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    with on_a_port(app, http=TimedConnection) as address:
        yield address


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Heads:
    """Sets how many seconds heads have that are awaited from now on; at first enough."""

    def within(seconds: float) -> None:
        monkeypatch.setattr(timed_connection, "HEAD_SECONDS", seconds)

    within(SECONDS)
    return within


def place(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("http://").split(":")
    return host, int(port)


def is_ended(caller: socket.socket, sent: bytes) -> bool:
    """Sends, and waits for the connection's end; it may come before what is sent arrives."""
    try:
        caller.sendall(sent)
        return caller.recv(100) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(
    address: str, heads: Heads, sent: bytes
) -> None:
    heads(0.2)
    with socket.create_connection(place(address), timeout=SECONDS) as silent:
        assert is_ended(silent, sent)


def test_so_does_the_head_of_a_further_request(address: str, heads: Heads) -> None:
    with socket.create_connection(place(address), timeout=SECONDS) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        told = b""
        while not told.endswith(b"\r\n\r\n0"):
            told += caller.recv(100)
        assert told.startswith(b"HTTP/1.1 200")
        heads(0.2)
        assert is_ended(caller, b"GET / HT")


def test_whole_requests_are_answered_on_one_connection(address: str, heads: Heads) -> None:
    with httpx.Client(base_url=address, timeout=SECONDS, trust_env=False) as client:
        found = [client.post("/", content=b"x" * size).text for size in (0, 1, 70_000)]
    assert found == ["0", "1", "70000"]
