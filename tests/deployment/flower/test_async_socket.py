"""Requests over a unix socket: kept connections, large bodies, and a server that fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cloister.deployment.flower.async_socket import AsyncSocketTransport
from cloister.deployment.flower.sockets import BASE_URL, Place
from tests.support.https import FakeSuperLink, at_socket

LIMITS = httpx.Limits(max_connections=4, max_keepalive_connections=2)
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client(path: Path, seconds: float = 60.0) -> httpx.AsyncClient:
    transport = AsyncSocketTransport(path, LIMITS)
    return httpx.AsyncClient(transport=transport, base_url=BASE_URL, timeout=seconds)


async def post(way: httpx.AsyncClient, content: bytes = b"question") -> httpx.Response:
    return await way.post("/v1/fleet/pull-object", content=content)


def of_a_server(path: Path, server: Server, ask: Callable[[], Awaitable[None]]) -> None:
    """Asks a server that is made by hand; waits until all its connections have ended."""

    async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def check() -> None:
        place = Place(path)  # of any depth
        async with await asyncio.start_unix_server(ended, place.name):
            await ask()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                await asyncio.wait(left)

    asyncio.run(check())


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return head + await reader.readexactly(int(length))


def test_requests_and_answers_of_any_size_come_whole(tmp_path: Path) -> None:
    link = FakeSuperLink(said={"pull-object": b"x" * 3_000_000})

    async def ask() -> None:
        async with client(tmp_path / "s") as way:
            for size in (0, 1, 2_000_000):
                answer = await post(way, b"q" * size)
                assert answer.content == link.said["pull-object"]
                assert answer.headers["flwr-told"] == "yes"

    tmp_path.chmod(0o700)
    with at_socket(link, tmp_path / "s"):
        asyncio.run(ask())
    assert [len(body) for _, _, _, body in link.asked] == [0, 1, 2_000_000]


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    came: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(0)
        for _ in range(2):  # requests of one connection
            await head_of(reader)
            came[-1] += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def ask() -> None:
        async with client(tmp_path / "s") as way:
            for _ in range(5):
                assert (await post(way)).text == "ok"
                await asyncio.sleep(0.01)  # so that the end of a connection arrives

    of_a_server(tmp_path / "s", serve, ask)
    assert came == [2, 2, 1]


def test_connections_are_kept_up_to_a_number_and_open_ones_are_bounded(tmp_path: Path) -> None:
    there: set[asyncio.StreamWriter] = set()
    everybody = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.add(writer)
        try:
            while True:
                await head_of(reader)
                await everybody.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            there.discard(writer)
            writer.close()

    async def ask() -> None:
        async with client(tmp_path / "s") as way:
            waiting = [asyncio.create_task(post(way)) for _ in range(4)]
            while len(there) < 4:
                await asyncio.sleep(0.001)
            with pytest.raises(httpx.PoolTimeout):
                await post(way)
            everybody.set()
            await asyncio.gather(*waiting)
            while len(there) > 2:
                await asyncio.sleep(0.001)
            assert (await post(way)).status_code == 200
            assert len(there) == 2

    of_a_server(tmp_path / "s", serve, ask)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", httpx.RemoteProtocolError),
        (b"no HTTP\r\n\r\n", httpx.RemoteProtocolError),
        (None, httpx.ReadTimeout),
    ],
)
def test_a_server_that_breaks_off_or_says_nothing_is_an_error(
    tmp_path: Path, said: bytes | None, error: type[Exception]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        if said is None:
            await reader.read()  # until the client leaves
        else:
            writer.write(said)
        writer.close()

    async def ask() -> None:
        async with client(tmp_path / "s", 0.05 if said is None else 60.0) as way:
            for _ in range(6):  # more than may be open: each gives its place back
                with pytest.raises(error):
                    await post(way)

    of_a_server(tmp_path / "s", serve, ask)


def test_an_answer_that_is_not_read_to_its_end_ends_its_connection(tmp_path: Path) -> None:
    came: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(True)
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalf"[:-2])
        await reader.read()
        writer.close()

    async def ask() -> None:
        async with client(tmp_path / "s") as way:
            for _ in range(6):
                async with way.stream("POST", "/", content=b"q") as answer:
                    assert answer.status_code == 200

    of_a_server(tmp_path / "s", serve, ask)
    assert len(came) == 6


def test_nobody_at_the_socket_is_an_error(tmp_path: Path) -> None:
    async def ask() -> None:
        async with client(tmp_path / "none") as way:
            with pytest.raises(httpx.ConnectError):
                await post(way)

    asyncio.run(ask())
