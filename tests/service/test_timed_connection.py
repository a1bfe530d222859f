"""A connection without a complete head in time is closed; others are kept alive."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cloister.service import timed_connection
from cloister.service.timed_connection import TimedConnection
from tests.support.web import on_a_port


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(timed_connection, "HEAD_SECONDS", 0.2)
    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    with on_a_port(app, http=TimedConnection) as address:
        yield address


def place(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("http://").split(":")
    return host, int(port)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(address: str, sent: bytes) -> None:
    with socket.create_connection(place(address), timeout=60) as silent:
        silent.sendall(sent)
        assert silent.recv(100) == b""


def test_so_does_the_head_of_a_further_request(address: str) -> None:
    with socket.create_connection(place(address), timeout=60) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        told = b""
        while not told.endswith(b"\r\n\r\n0"):
            told += caller.recv(100)
        assert told.startswith(b"HTTP/1.1 200")
        caller.sendall(b"GET / HT")
        assert caller.recv(100) == b""


def test_whole_requests_are_answered_on_one_connection(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        found = [client.post("/", content=b"x" * size).text for size in (0, 1, 70_000)]
    assert found == ["0", "1", "70000"]
