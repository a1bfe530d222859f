"""A connection to the gate has bounds in time, bytes and calls at a time."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cloister.deployment.coordinator import gate as gate_module
from cloister.deployment.coordinator import gate_connection, gate_forward, gate_turns
from cloister.deployment.coordinator.gate_places import Places
from cloister.deployment.coordinator.gate_rates import Rates
from tests.support import gate as gates
from tests.support.gate import BODY, CALL, Gate, head, open_gate, sent, signed, status_of


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with open_gate(tmp_path) as opened:
        yield opened


def whole(site: str = "ward", body: bytes = BODY, call: str = CALL, close: bool = False) -> bytes:
    """A request; the connection stays open unless it is told to close."""
    lines = signed(site) | {"content-length": str(len(body))}
    text = head(f"POST /v1/fleet/{call} HTTP/1.1", lines) + body
    return text if close else text.replace(b"connection: close\r\n", b"")


def ends(plain: socket.socket) -> bool:
    """Whether the other side ends the connection, be it by a reset; a time-out is an error."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while plain.recv(65536):
            pass
    return True


def until_end(secured: ssl.SSLSocket, count: int) -> bytes:
    """What comes back until so many answers are whole, or the connection ends."""
    answer = b""
    while answer.count(b"0\r\n\r\n") < count and (part := secured.recv(65536)):
        answer += part
    return answer


def test_a_handshake_that_does_not_end_is_cut_off(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_connection, "HANDSHAKE", 0.2)
    for text in (b"", b"\x16\x03\x01\x00\x80"):
        with socket.create_connection(("127.0.0.1", gate.port), 20) as plain:
            plain.sendall(text)
            assert ends(plain)
    monkeypatch.undo()
    assert gate.post(signed("ward")) == 200


def test_a_member_s_next_head_comes_in_time_or_never(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gate.connection() as secured:
        secured.sendall(whole())
        assert status_of(until_end(secured, 1)) == 200
        monkeypatch.setattr(gate_connection, "HEAD", 0.2)
        secured.sendall(b"POST /v1/fl")
        assert ends(secured)


def test_a_head_that_begins_behind_another_request_comes_in_time(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gate.connection() as secured:
        monkeypatch.setattr(gate_connection, "HEAD", 0.3)
        secured.sendall(whole() + b"POST /v1/fl")
        assert status_of(until_end(secured, 1)) == 200
        assert ends(secured)


def test_whoever_says_nothing_more_holds_its_place_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "IDLE", 1)
    with open_gate(tmp_path) as gate, gate.connection() as secured:
        secured.sendall(whole())
        assert status_of(until_end(secured, 1)) == 200
        assert ends(secured)


def test_requests_one_behind_the_other_are_answered_in_turn(gate: Gate) -> None:
    with gate.connection() as secured:
        secured.sendall(whole() * 5)
        assert until_end(secured, 5).count(b"HTTP/1.1 200") == 5
    assert len(gate.link.asked) == 5


@pytest.mark.parametrize("line", ["GET /x HTTP/1.1", "POST /v1/fleet/x HTTP/1.1", "PUT / HTTP/1.1"])
def test_a_stranger_gets_one_answer(gate: Gate, line: str) -> None:
    text = head(line, {"content-length": "0"}).replace(b"connection: close\r\n", b"")
    answer = gate.raw(text * 3)
    assert answer.count(b"HTTP/1.1") == 1
    assert status_of(answer) in (401, 404, 405)


def test_whoever_does_not_read_is_cut_off_and_holds_no_turn(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.ask(gate)
    gate.link.said["pull-object"] = b"x" * 20_000_000
    monkeypatch.setattr(gate_forward, "PATIENCE", 0.5)
    held: list[str] = []
    request = gate_turns.Turns.request

    @contextmanager
    def counted(turns: gate_turns.Turns, site: str) -> Iterator[bool]:
        held.append(site)
        try:
            with request(turns, site) as may:
                yield may
        finally:
            held.pop()

    monkeypatch.setattr(gate_turns.Turns, "request", counted)
    body = gates.fetch().SerializeToString()
    with ExitStack() as stack:
        opened = [stack.enter_context(gate.connection()) for _ in range(gate_turns.MOST_REQUESTS)]
        for secured in opened:
            secured.sendall(whole(body=body, call="pull-object"))
        deadline = time.monotonic() + 600
        # 503 while those who do not read hold its turns; then until all are cut off.
        while gate.say(gates.poll()) != 200 or held:
            assert time.monotonic() < deadline
        for secured in opened:
            assert len(sent(secured, b"")) < 20_000_000


def test_a_large_object_is_passed_on_whole(gate: Gate) -> None:
    gates.ask(gate)
    gate.link.said["pull-object"] = content = bytes(range(256)) * 40_000
    text = whole(body=gates.fetch().SerializeToString(), call="pull-object", close=True)
    answer = gate.raw(text.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.partition(b"\r\n\r\n")[2] == content


def test_one_member_s_connections_are_bounded_and_another_s_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "PER_MEMBER", 3)
    with open_gate(tmp_path) as gate, ExitStack() as stack:
        gates.join(gate.folder, "clinic")
        for _ in range(3):
            secured = stack.enter_context(gate.connection())
            secured.sendall(whole())
            assert status_of(until_end(secured, 1)) == 200
        assert gate.post(signed("ward")) == 503  # which a SuperNode tries again
        assert gate.post(signed("clinic"), body=gates.heartbeat(gates.OTHER_NODE)) == 200
        secured.sendall(whole())
        assert status_of(until_end(secured, 1)) == 200


def test_one_member_s_requests_at_a_time_are_bounded(gate: Gate) -> None:
    """Bodies that do not end hold the member's turns; nobody else's."""
    gates.join(gate.folder, "clinic")
    line = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward") | {"content-length": "30"})
    with ExitStack() as stack:
        for _ in range(gate_turns.MOST_REQUESTS):
            secured = stack.enter_context(gate.connection())
            secured.sendall(line + b"x")
        codes = {gate.post(signed("ward")) for _ in range(20)}
        assert gate.post(signed("clinic"), body=gates.heartbeat(gates.OTHER_NODE)) == 200
    assert codes == {503} or codes == {200, 503}  # the last head may still be on its way


def test_a_network_s_handshakes_are_bounded_and_a_member_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "Rates", lambda: Rates(burst=3, per_second=0.0))
    with open_gate(tmp_path) as gate:
        for _ in range(3):
            with gate.connection("127.0.0.5") as secured:
                assert status_of(sent(secured, whole("stranger"))) == 401
        monkeypatch.setattr(gate_connection, "HANDSHAKE", 0.2)
        with pytest.raises((ConnectionError, ssl.SSLError)), gate.connection("127.0.0.5"):
            pass
        monkeypatch.undo()
        for _ in range(5):  # from elsewhere, as often as it likes
            with gate.connection("127.0.0.6") as secured:
                assert status_of(sent(secured, whole(close=True))) == 200


def test_a_handshake_that_is_broken_off_costs_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "Rates", lambda: Rates(burst=2, per_second=0.0))
    with open_gate(tmp_path) as gate:
        for text in (b"", b"", b"no TLS at all", b"nor here"):
            with socket.create_connection(("127.0.0.1", gate.port), 20, ("127.0.0.5", 0)) as plain:
                plain.sendall(text)
                plain.shutdown(socket.SHUT_WR)
                assert ends(plain)
        monkeypatch.setattr(gate_connection, "HANDSHAKE", 0.2)
        with pytest.raises((ConnectionError, ssl.SSLError)), gate.connection("127.0.0.5"):
            pass
        monkeypatch.undo()
        assert gate.post(signed("ward")) == 200


def test_a_member_behind_many_strangers_of_its_network_is_heard_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "Rates", lambda: Rates(burst=2, per_second=20.0))
    with open_gate(tmp_path) as gate, ExitStack() as stack:
        for _ in range(300):
            plain = socket.create_connection(("127.0.0.1", gate.port), 20, ("127.0.0.5", 0))
            stack.enter_context(plain)
            with contextlib.suppress(ConnectionError):
                plain.sendall(b"\x16\x03\x01\x00\x80")
        with gate.connection("127.0.0.5") as secured:
            assert status_of(sent(secured, whole(close=True))) == 200


def test_the_process_of_a_low_limit_says_so_and_keeps_strangers_places(
    caplog: pytest.LogCaptureFixture,
) -> None:
    enough = gate_module.places_within(gate_module.files_needed())
    assert (enough.strangers, enough.members) == (gate_module.STRANGERS, gate_module.MEMBERS)
    assert caplog.text == ""
    few: Places = gate_module.places_within(gate_module.files_needed() - 100)
    assert (few.strangers, few.members) == (gate_module.STRANGERS, gate_module.MEMBERS - 100)
    assert "LimitNOFILE" in caplog.text
    assert gate_module.places_within(100).members == gate_module.PER_MEMBER
