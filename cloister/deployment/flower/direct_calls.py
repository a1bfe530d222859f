"""Answers the frequent calls to a SuperLink without the layers that do nothing for them.

Flower's application passes each call through nine layers, of which at most three do anything with
it; the others are for other interfaces, or for logs that are switched off. Each layer starts tasks
of its own, and together they take longer than the call's work. Here the calls that come for every
site and round go straight to Flower's own functions, in Flower's order, with all of its checks:

    media type -> request -> node's signature, time and id (sites), or version and token (executor)
               -> handler

The executor may make several calls of one kind in one request (`many_calls`). Every other call goes
to Flower's application. Tested against it, answer by answer
(`tests/deployment/flower/test_direct_calls.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.dependencies.version import VersionDependency
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import (
    PROTOBUF_REQUEST_TYPES,
    ProtobufTranslationMiddleware,
)
from flwr.superlink.dependencies.linkstate import get_linkstate
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from cloister.deployment.flower import INSTALL_TESTED
from cloister.deployment.flower.many_calls import LARGE, MANY, Parts
from cloister.errors import UsageError

# Threads for the calls' work, which uses the database one after the other (`link_state`).
THREADS = 4
# The layers of Flower 1.41, of which a call needs the second and fifth, which stand here, and a
# site's call the eighth. Another one may check something.
LAYERS = (
    "ControlSensitiveResponseMiddleware",
    "BaseHTTPMiddleware",
    "ControlAuthenticationMiddleware",
    "ControlLicenseMiddleware",
    "ProtobufTranslationMiddleware",
    "RuntimeTracingMiddleware",
    "ControlEventLogMiddleware",
    "NodeAuthMiddleware",
    "FleetEventLogMiddleware",
)
# Checks who calls; returns what the handler needs beside the message.
Check: TypeAlias = Callable[[Request], tuple[Any, ...]]

# As Flower's `create_runtime_router` of a SuperLink.
_check_version = VersionDependency(
    component_name="SuperLink", connection_name="Caller <-> SuperLink Runtime API"
)


def _site(request: Request) -> tuple[LinkState]:
    """A node calls: Flower checks its signature, its time and its id in the message."""
    authenticate_node(request)
    return (get_linkstate(request),)


def _executor(request: Request) -> tuple[LinkState, Task]:
    """The executor calls about a task: Flower checks version and token."""
    _check_version(request)
    state = get_linkstate(request)
    task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
    return state, task


@dataclass(frozen=True)
class Call:
    """How one call is answered.

    Attributes:
        check: Flower's checks of its caller.
        handler: Flower's function for it.
    """

    check: Check
    handler: Callable[..., Message]

    def one(self, request: Request) -> Message:
        """The answer to the message in `request.state.protobuf_request`."""
        return self.handler(request.state.protobuf_request, *self.check(request))

    def many(self, request: Request) -> Parts:
        """The answers to the messages in `request.state.protobuf_request`, until they are large."""
        caller, size = self.check(request), 0
        answers = Parts()
        for message in request.state.protobuf_request:
            if size > LARGE:
                break
            answers.parts.append(self.handler(message, *caller).SerializeToString())
            size += len(answers.parts[-1])
        return answers


def _pull_messages(request: Any, state: LinkState) -> Message:
    return fleet_handlers.pull_messages(request=request, state=state, store=state.object_store)


def _confirm(request: Any, state: LinkState) -> Message:
    return fleet_handlers.confirm_message_received(
        request=request, state=state, store=state.object_store
    )


SITES: Mapping[str, Call] = {
    f"/v1/fleet/{name}": Call(_site, handler)
    for name, handler in {
        "send-node-heartbeat": fleet_handlers.send_node_heartbeat,
        "pull-messages": _pull_messages,
        "pull-object": fleet_handlers.pull_object,
        "confirm-message-received": _confirm,
        "push-messages": fleet_handlers.push_messages,
        "push-object": fleet_handlers.push_object,
    }.items()
}
EXECUTORS: Mapping[str, Call] = {
    f"/v1/runtime/{name}": Call(_executor, handler)
    for name, handler in {
        "push-messages": runtime_handlers.push_messages,
        "push-object": runtime_handlers.push_object,
        "pull-messages": runtime_handlers.pull_messages,
        "pull-object": runtime_handlers.pull_object,
        "confirm-message-received": runtime_handlers.confirm_message_received,
    }.items()
}
CALLS: Mapping[str, Call] = {**SITES, **EXECUTORS}


class DirectCalls:
    """Flower's application of a SuperLink, as an ASGI application.

    Args:
        app: Flower's, without plug-ins that log calls.

    Raises:
        UsageError: It has other layers than `LAYERS`, which the short way would leave out.
    """

    def __init__(self, app: Starlette) -> None:
        layers = tuple(str(getattr(one.cls, "__name__", one.cls)) for one in app.user_middleware)
        if layers != LAYERS:
            other = ", ".join(sorted({*layers} ^ {*LAYERS})) or "the same in another order"
            raise UsageError(
                f"this Flower's SuperLink has other layers ({other}), which may check what the "
                f"short way for frequent calls would leave out; {INSTALL_TESTED}"
            )
        self._app = app
        self._threads = ThreadPoolExecutor(THREADS, "call")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a call."""
        path = scope["path"] if scope["type"] == "http" and scope["method"] == "POST" else ""
        request = Request({**scope, "app": self._app}, receive) if path else None
        if path in CALLS and request is not None:
            answer = await http_error_translator(request, partial(self._one, CALLS[path]))
        elif path.removeprefix(MANY) in EXECUTORS and request is not None:
            call = EXECUTORS[path.removeprefix(MANY)]
            answer = await http_error_translator(request, partial(self._many, call))
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    async def _one(self, call: Call, request: Request) -> Response:
        """A call's answer.

        Raises:
            FlowerError: It is refused.
            HTTPException: It is not authenticated.
        """
        kind = PROTOBUF_REQUEST_TYPES[("POST", request.url.path)]
        ProtobufTranslationMiddleware._check_request_media_type(request)
        request.state.protobuf_request = ProtobufTranslationMiddleware._parse_request(
            await request.body(), kind
        )
        return await self._answer(call.one, request)

    async def _many(self, call: Call, request: Request) -> Response:
        """The answer to several calls of one kind.

        Raises:
            FlowerError: One of them is refused.
        """
        parse = ProtobufTranslationMiddleware._parse_request
        kind = PROTOBUF_REQUEST_TYPES[("POST", request.url.path.removeprefix(MANY))]
        ProtobufTranslationMiddleware._check_request_media_type(request)
        parts = parse(await request.body(), cast(Any, Parts))
        request.state.protobuf_request = [parse(part, kind) for part in cast(Parts, parts).parts]
        return await self._answer(call.many, request)

    async def _answer(
        self, work: Callable[[Request], Message | Parts], request: Request
    ) -> Response:
        """A call's work, in a thread of its own."""
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, work, request)
        return Response(answer.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)
