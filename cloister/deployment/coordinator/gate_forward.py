"""The gate's ASGI application: it checks each request and forwards it to the SuperLink.

    headers -> member -> signature -> call -> place and turn -> size -> body -> judged -> SuperLink

Each step needs the one before it, and the first that fails answers. Of a stranger's request only
the headers are read.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from cloister.deployment.coordinator.gate_answers import member_headers, refusal
from cloister.deployment.coordinator.gate_authenticator import (
    KEY_HEADER,
    MemberAuthenticator,
    are_too_many,
    holds_its_key,
    passed_on,
)
from cloister.deployment.coordinator.gate_book import Book
from cloister.deployment.coordinator.gate_calls import CALLS, Caller, judge, largest_body, parse
from cloister.deployment.coordinator.gate_lessons import INVALID_ANSWER, READ_WHOLE, Lesson
from cloister.deployment.coordinator.gate_polls import Polls
from cloister.deployment.coordinator.gate_turns import RANKS, Line, Turns
from cloister.deployment.flower.async_socket import AsyncSocketTransport
from cloister.deployment.flower.sockets import BASE_URL

# Seconds for the SuperLink to answer, which writes to a local disk; and for a site to send a
# request's body or read an answer's, with the same again for each `SLOWEST` bytes: 16 MB per minute
# are 2 Mbit/s. A site may pause for `STALL` seconds, after which a SuperNode gives up too.
PATIENCE, SLOWEST, STALL = 60.0, 16_000_000, 30.0
# Seconds and bytes for which the rest of a too large body is read and dropped, so that its sender
# reads the refusal; after that the connection is cut off.
THROWN_SECONDS, THROWN_BYTES = 5.0, 16_000_000
# Most bytes of an answer that the gate reads: one question's names and times.
LARGEST_WHOLE = 4_000_000
# Connections to the SuperLink.
MOST_LINKS = 256


class Connection(Protocol):
    """The connection of a request, as the application sees it (`gate_connection.Conversation`)."""

    most: int

    def belongs_to(self, site: str) -> bool:
        """Notes the connection's member; returns whether the member may have it."""
        ...

    def is_strangers(self) -> None:
        """Notes that the connection is not a member's."""
        ...

    def abort(self, why: str) -> None:
        """Cuts the connection off and logs why."""
        ...


@dataclass(frozen=True)
class Visitor:
    """A member whose signature was checked.

    Attributes:
        site: Its name.
        key: Its node's key in PEM.
        headers: The headers to forward.
    """

    site: str
    key: str
    headers: Mapping[str, str]


@dataclass
class Gate:
    """The gate as an ASGI application: the coordinator's only endpoint.

    Attributes:
        door: Authenticates members.
        book: The questions to each member.
        largest: Returns the bytes of the largest reply in a run.
        seen: Called with each member's request and its bytes.
        polls: Holds the polls of nodes without a question.
        turns: Limits each member's requests at a time.
        line: Limits the calls that the SuperLink is working on.
        client: HTTP client of the SuperLink; set while the application runs.
    """

    door: MemberAuthenticator
    book: Book
    largest: Callable[[int], int]
    seen: Callable[[str, int], None]
    polls: Polls
    turns: Turns = field(default_factory=Turns)
    line: Line = field(default_factory=Line)
    client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, or refuses it."""
        request, connection = Request(scope, receive), scope["connection"]
        connection.most = 0
        visitor = self._visitor(request)
        if isinstance(visitor, Response):
            connection.is_strangers()
            await _deliver(visitor, scope, receive, send, connection)
        elif request.path_params["call"] not in CALLS:
            await _deliver(refusal(404, "not for sites"), scope, receive, send, connection)
        elif not connection.belongs_to(visitor.site):
            full = refusal(503, "too many connections of one member", visitor.site)
            await _deliver(full, scope, receive, send, connection)
        else:
            with self.turns.request(visitor.site) as taken:
                answer = (
                    await self._answer(visitor, request, connection)
                    if taken
                    else refusal(503, "too many requests of one member at a time", visitor.site)
                )
                await _deliver(answer, scope, receive, send, connection)

    def _visitor(self, request: Request) -> Visitor | Response:
        """The member that makes a request, by its headers; else a refusal."""
        raw = request.headers.raw
        if are_too_many(raw):
            return refusal(431, "more headers than a node sends")
        headers = passed_on(raw)
        if headers is None:
            return refusal(400, "a header is sent twice, or is not ASCII")
        site = self.door.site_of(headers.get(KEY_HEADER, ""))
        if site is None:
            return refusal(401, "unknown, unapproved, revoked or expired key")
        if not holds_its_key(headers):
            return refusal(401, "not signed by the key that it shows", site)
        if request.headers.get("transfer-encoding") is not None:
            return refusal(411, "the body's length is needed; no SuperNode sends chunks", site)
        return Visitor(site, base64.b64decode(headers[KEY_HEADER]).decode(), headers)

    async def _answer(self, visitor: Visitor, request: Request, connection: Connection) -> Response:
        """Answers a member's request."""
        site, call = visitor.site, str(request.path_params["call"])
        caller = Caller(
            key=visitor.key,
            page=self.book.page(visitor.key),
            largest=self.largest,
            is_anothers=lambda node: self.book.is_anothers(node, visitor.key),
            now=time.time(),
        )
        most, size = largest_body(call, caller), _declared(request)
        connection.most = max(most, THROWN_BYTES)
        if size > most:
            await _throw_away(request)
            return refusal(413, f"{size} bytes; at most {most} are allowed", site)
        async with self.turns.body(site, size):
            try:
                body = await _body_of(request)
            except TimeoutError:
                return refusal(408, "the body came too slowly", site)
            except ClientDisconnect:
                return Response(status_code=400)
            self.seen(site, len(body))
            said = parse(call, body)
            if said is None:
                return refusal(400, f"not a request of {call}", site)
            refused = judge(said, caller)
            if refused is not None:
                return refusal(refused.code, refused.why, site)
            if isinstance(said, PullMessagesRequest):
                return await self._poll(visitor, body, said, caller, request)
            answer = await self._in_turn(visitor, call, body, said, caller)
            return answer or refusal(503, "too many calls wait for the SuperLink", site)

    async def _poll(
        self, who: Visitor, body: bytes, said: PullMessagesRequest, caller: Caller, asked: Request
    ) -> Response:
        """Answers a poll; one that would bring nothing is held, and the SuperLink is not asked."""
        node = said.node.node_id
        empty = await self.polls.held(node, asked.receive)
        if empty is not None:
            return Response(empty[0], 200, dict(empty[1]))
        mark = self.polls.mark(node)
        answer = await self._in_turn(who, "pull-messages", body, said, caller)
        if answer is None:  # it is too busy; the node asks again in 3 s
            return Response(b"", 200, member_headers(who.site), PROTOBUF_MEDIA_TYPE)
        if answer.status_code == 200 and not answer.body:
            self.polls.came_empty(node, mark, bytes(answer.body), answer.headers)
        else:
            self.polls.forget(node)
        return answer

    async def _in_turn(
        self, visitor: Visitor, call: str, body: bytes, said: Message, caller: Caller
    ) -> Response | None:
        """Forwards an allowed request at its turn; None if that does not come in time.

        Until then a body came and a poll was held, for a minute or more: a member that was revoked
        meanwhile is refused.
        """
        async with self.line.turn(RANKS.get(call, 0)) as taken:
            if not taken:
                return None
            if self.door.site_of(visitor.headers[KEY_HEADER]) != visitor.site:
                return refusal(401, "revoked or expired meanwhile")
            return await self._ask(visitor, call, body, said, caller)

    async def _ask(
        self, visitor: Visitor, call: str, body: bytes, said: Message, caller: Caller
    ) -> Response:
        """Forwards an allowed request to the SuperLink, and stores the results of its answer."""
        assert self.client is not None
        lesson = Lesson(self.book, caller, said)
        lesson.before()
        answer: httpx.Response | None = None
        try:
            answer = await self.client.send(
                self.client.build_request(
                    "POST",
                    f"/v1/fleet/{call}",
                    content=body,
                    headers={**visitor.headers, "accept-encoding": "identity"},
                ),
                stream=True,
            )
            content = None
            if isinstance(said, ActivateNodeRequest):
                self.polls.forget(caller.page.node)
            if call in READ_WHOLE or not answer.is_success:
                content = await _whole(answer)
            if not lesson.after(answer.is_success, content):
                return refusal(502, INVALID_ANSWER, visitor.site)
        except httpx.HTTPError:  # it may have processed the call: the node repeats it
            return refusal(
                503,
                "the coordinator's SuperLink is not running; it is being restarted",
                visitor.site,
            )
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name in ("content-type", "content-length") or name.startswith("flwr-")
        } | member_headers(visitor.site)
        if content is None:
            return Passing(answer, headers)
        headers.pop("content-length", None)
        return Response(content, answer.status_code, headers)


class Passing(Response):
    """An answer that is forwarded piece by piece, because an object of a question may be large.

    Args:
        answer: The SuperLink's open answer.
        headers: The headers for the member.
    """

    def __init__(self, answer: httpx.Response, headers: Mapping[str, str]) -> None:
        self._from = answer
        self.status_code = answer.status_code
        self.background = None
        self.init_headers(headers)  # the length is the one that the SuperLink states

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forwards a member's request to the SuperLink and returns its answer.

        Raises:
            TimeoutError: The member reads it too slowly.
            httpx.HTTPError: The SuperLink broke off.
        """
        loop, length = asyncio.get_running_loop(), 0
        began = loop.time()
        try:
            async with asyncio.timeout_at(_deadline(began, 0)) as limit:
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                async for part in self._from.aiter_raw(65_536):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    length += len(part)
                    limit.reschedule(_deadline(began, length))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._from.aclose()


async def _deliver(
    answer: Response, scope: Any, receive: Any, send: Any, connection: Connection
) -> None:
    """Sends an answer; a member that does not read it in time is cut off."""
    try:
        if isinstance(answer, Passing):
            await answer(scope, receive, send)
            return
        async with asyncio.timeout(PATIENCE):
            await answer(scope, receive, send)
    except TimeoutError:
        connection.abort("it does not read its answer")
    except httpx.HTTPError as error:  # part of the answer is sent: only a cut-off shows the error
        connection.abort(f"the SuperLink broke off: {type(error).__name__}")


async def _body_of(request: Request) -> bytes:
    """Reads a request's body; h11 checks that it has the declared length.

    Raises:
        TimeoutError: It comes too slowly.
    """
    loop, body = asyncio.get_running_loop(), bytearray()
    began = loop.time()
    async with asyncio.timeout_at(_deadline(began, 0)) as limit:
        async for chunk in request.stream():
            body += chunk
            limit.reschedule(_deadline(began, len(body)))
    return bytes(body)


def _deadline(began: float, moved: int) -> float:
    """The time, by the loop's clock, by which more bytes must have come."""
    now = asyncio.get_running_loop().time()
    return min(began + PATIENCE * (1 + moved / SLOWEST), now + STALL)


async def _throw_away(request: Request) -> None:
    count = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(THROWN_SECONDS):
            async for part in request.stream():
                count += len(part)
                if count > THROWN_BYTES:
                    return


async def _whole(answer: httpx.Response) -> bytes | None:
    """An answer's bytes; None if there are too many."""
    content = bytearray()
    try:
        async for part in answer.aiter_raw():
            content += part
            if len(content) > LARGEST_WHOLE:
                return None
    finally:
        await answer.aclose()
    return bytes(content)


def _declared(request: Request) -> int:
    """The declared length of a request's body; h11 has checked that it is a number."""
    return int(request.headers.get("content-length", 0))


def make_gate(gate: Gate, superlink: Path) -> Starlette:
    """Makes the gate's ASGI application.

    Args:
        gate: Its endpoint.
        superlink: The SuperLink's socket.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=MOST_LINKS, max_keepalive_connections=32)
        async with httpx.AsyncClient(
            base_url=BASE_URL,
            transport=AsyncSocketTransport(superlink, limits),
            timeout=PATIENCE,
            trust_env=False,
        ) as gate.client:
            watching = asyncio.create_task(gate.polls.watch())
            yield
            watching.cancel()

    app = Starlette(routes=[Route("/v1/fleet/{call}", gate, methods=["POST"])], lifespan=lifespan)
    app.router.redirect_slashes = False
    return app
