"""A caller that asks and never reads its answer is left after a while, and keeps nobody waiting."""

import socket
import threading
import time

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from cloister.service import gate
from cloister.service.callers import CallerRates, Callers
from cloister.service.figures import Figures
from tests.support.web import on_a_port

# More than the sockets of both sides hold, so that sending waits for the reader.
PIECE = b"x" * 2**20
SECONDS = 30


def test_a_caller_that_does_not_read_is_left_and_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "UNREAD_SECONDS", 0.5)
    ended = threading.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/healthz":
            await send({"type": "http.response.body", "body": b"here"})
            return
        try:
            while True:
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        finally:
            ended.set()

    rates = CallerRates(None, time.monotonic)
    app = gate.RequestGate(endless, Callers(), rates, Figures(lambda: 0))
    with on_a_port(app) as address, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        place = httpx.URL(address)
        caller.connect((place.host, place.port))
        caller.sendall(b"GET /page HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert httpx.get(f"{address}/healthz", trust_env=False).text == "here"
        assert ended.wait(SECONDS)
        # What was sent is followed by the connection's end, not by more of the answer.
        caller.settimeout(SECONDS)
        try:
            while caller.recv(2**20):
                pass
        except ConnectionResetError:
            pass
        assert httpx.get(f"{address}/healthz", trust_env=False).text == "here"
    assert app.answered == 3
