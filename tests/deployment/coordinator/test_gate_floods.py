"""Strangers and members who send without end, against a gate of its own process on loopback."""

import contextlib
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from cloister.deployment.coordinator.open_files import raise_open_files
from tests.support import gate as gates
from tests.support.gate import CALL, Gate, head, make_folder, sent, signed, status_of
from tests.support.https import FakeSuperLink

# Sockets of the test itself: the most connections it opens, and room.
NEEDED = 3000
# What the gate may grow by while it is attacked: its places for strangers are 256, with 64 kB read
# at a time each; the attacks below send several times as much.
MOST_GROWTH = 64_000_000
# Bytes that an attack sends unless it is cut off before: beyond what the kernel's buffers hold on
# loopback (6 MB each way).
ATTACK = 100_000_000


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, psutil.Process]]:
    """A gate as the service starts it, under the soft limit of files that most systems have."""
    folder, link = make_folder(tmp_path_factory.mktemp("gate")), FakeSuperLink()
    gates.join(folder, "ward")
    gate = Gate(folder, link)
    module = "cloister.deployment.coordinator.gate"
    command = f"ulimit -Sn 1024; exec {sys.executable} -m {module} {folder.path}"
    with (folder.path / "gate.log").open("wb") as log, gates.behind(folder, link):
        started = subprocess.Popen(["/bin/sh", "-c", command], stderr=log)
        try:
            deadline = time.monotonic() + 600
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    assert gate.post(signed("ward")) == 200
                    break
                assert started.poll() is None
                assert time.monotonic() < deadline
            yield gate, psutil.Process(started.pid)
        finally:
            started.terminate()
            started.wait(600)


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Keeps what a test opens until its end."""
    if raise_open_files(NEEDED) < NEEDED:
        pytest.skip(f"{NEEDED} open files are needed; raise the hard limit (ulimit -Hn)")
    with contextlib.ExitStack() as stack:
        yield stack


def bare(gate: Gate, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", gate.port), 20, (source, 0))


def answered(secured: socket.socket, text: bytes) -> int:
    """A request on a connection that stays open; the code of its answer, which is read whole."""
    secured.sendall(text)
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        part = secured.recv(65536)
        assert part, answer
        answer += part
    return status_of(answer)


@pytest.mark.parametrize(
    "sources",
    [pytest.param(1, marks=pytest.mark.nightly), 40],
    ids=["from one address", "from forty"],
)
def test_1100_bare_connections_lock_nobody_out(
    process: tuple[Gate, psutil.Process], sockets: contextlib.ExitStack, sources: int
) -> None:
    gate, _ = process
    open_before = sockets.enter_context(gate.connection("127.0.0.2"))
    line = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward"))
    keeping = line.replace(b"connection: close\r\n", b"")[:-2]
    keeping += b"content-length: %d\r\n\r\n" % len(gates.BODY) + gates.BODY
    assert answered(open_before, keeping) == 200
    for number in range(1100):
        sockets.enter_context(bare(gate, f"127.0.0.{3 + number % sources}"))
    # A member whose address nobody else has, one that shares its with the flood, and one that was
    # there before: each gets its answer.
    assert gate.post(signed("ward")) == 200
    with gate.connection("127.0.0.3") as shared:
        text = line[:-2] + b"content-length: %d\r\n\r\n" % len(gates.BODY) + gates.BODY
        assert status_of(sent(shared, text)) == 200
    assert answered(open_before, keeping) == 200


def test_the_gate_raises_its_own_limit_of_files(process: tuple[Gate, psutil.Process]) -> None:
    _, running = process
    soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    assert soft > 1024 or soft == hard


def member_s(lines: bytes) -> bytes:
    start = head(f"POST /v1/fleet/{CALL} HTTP/1.1", signed("ward"))
    return start[:-2] + lines


# What is sent first, and what then without end.
ENDLESS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "a request line": lambda: (b"POST /", b"a" * 65536),
    "one header": lambda: (b"POST / HTTP/1.1\r\nx: ", b"a" * 65536),
    "headers": lambda: (b"POST / HTTP/1.1\r\n", b"x-header: value\r\n" * 4096),
    "empty headers": lambda: (b"POST / HTTP/1.1\r\n", b"x:\r\n" * 16384),
    "folded headers": lambda: (b"POST / HTTP/1.1\r\nx: y\r\n", b" z\r\n" * 16384),
    "line ends": lambda: (b"", b"\r\n" * 32768),
    "noughts": lambda: (b"", b"\0" * 65536),
    "HTTP/2": lambda: (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0" * 7000),
    "a stranger's body": lambda: (
        head("POST / HTTP/1.1", signed("stranger") | {"content-length": "999999999"}),
        b"x" * 65536,
    ),
    "a tunnel": lambda: (head("CONNECT localhost:1 HTTP/1.1", signed("ward")), b"x" * 65536),
    "requests, one behind the other": lambda: (
        b"",
        head("GET /x HTTP/1.1", {}).replace(b"connection: close\r\n", b"") * 1000,
    ),
    "a member's body": lambda: (member_s(b"content-length: 999999999\r\n\r\n"), b"x" * 65536),
    "a member's chunks": lambda: (
        member_s(b"transfer-encoding: chunked\r\n\r\n"),
        b"1000\r\n" + b"x" * 4096 + b"\r\n",
    ),
    "a member's empty chunks' names": lambda: (
        member_s(b"transfer-encoding: chunked\r\n\r\n"),
        b"1;" + b"e" * 9000 + b"\r\nx\r\n",
    ),
    "a chunk's extension": lambda: (
        member_s(b"transfer-encoding: chunked\r\n\r\n1;"),
        b"e" * 65536,
    ),
    "a member's trailers": lambda: (
        member_s(b"transfer-encoding: chunked\r\n\r\n0\r\n"),
        b"x: y\r\n" * 10000,
    ),
    "a member's headers": lambda: (member_s(b""), b"x: y\r\n" * 10000),
}


def push(secured: socket.socket, first: bytes, then: bytes) -> int:
    """Sends until it is cut off; how many bytes went out."""
    count = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        secured.sendall(first)
        while count < ATTACK:
            secured.sendall(then)
            count += len(then)
    return count


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_cut_off_and_takes_no_memory(
    process: tuple[Gate, psutil.Process], name: str
) -> None:
    """On the gate before, one connection's endless headers took 337 MB."""
    gate, running = process
    before = running.memory_info().rss
    with gate.connection() as secured:
        assert push(secured, *ENDLESS[name]()) < ATTACK
    assert running.memory_info().rss - before < MOST_GROWTH
    assert gate.post(signed("ward")) == 200


def test_what_is_no_tls_is_cut_off_and_takes_no_memory(
    process: tuple[Gate, psutil.Process],
) -> None:
    gate, running = process
    before = running.memory_info().rss
    for first, then in (
        (b"", b"GET / HTTP/1.1\r\n" * 4096),
        (b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb", b"\0" * 65536),  # a client hello of 16 MB
        (b"\x16\x03\x01\x00\x01\x01", b"\x16\x03\x01\x00\x01\x00" * 10000),  # of one byte each
    ):
        with bare(gate) as plain:
            assert push(plain, first, then) < ATTACK
    assert running.memory_info().rss - before < MOST_GROWTH
    assert gate.post(signed("ward")) == 200


def test_many_who_send_a_little_take_no_memory(
    process: tuple[Gate, psutil.Process], sockets: contextlib.ExitStack
) -> None:
    """As many as there are places, each with as much of a head as is taken."""
    gate, running = process
    before = running.memory_info().rss
    for number in range(400):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            source = f"127.0.1.{1 + number % 8}"
            secured = sockets.enter_context(gate.connection(source))
            secured.sendall(b"POST / HTTP/1.1\r\nx: " + b"a" * 15_000)
    assert running.memory_info().rss - before < MOST_GROWTH
    assert gate.post(signed("ward")) == 200


def test_a_reply_of_375_mb_is_cut_off_at_the_gate(process: tuple[Gate, psutil.Process]) -> None:
    gate, running = process
    gates.ask(gate)
    assert gate.say(gates.reply()) == 200
    before = running.memory_info().rss
    lines = head("POST /v1/fleet/push-object HTTP/1.1", signed("ward"))[:-2]
    gate.link.asked.clear()
    for more in (b"content-length: 375000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"):
        with gate.connection() as secured:
            pushed = push(secured, lines + more, b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert pushed < ATTACK or b"content" in more
    assert running.memory_info().rss - before < MOST_GROWTH
    assert gate.link.asked == []
    assert gate.post(signed("ward")) == 200
