"""Answers the frequent calls to a SuperLink without the layers that do nothing for them.

Flower's application passes each call through nine layers, of which at most three do anything with
it; the others are for other interfaces, or for logs that are switched off. Each layer starts tasks
of its own, and together they take longer than the call's work. Here the calls that come for every
site and round go straight to Flower's own functions, in Flower's order, with all of its checks:

    media type -> request -> node's signature, time and id (sites), or version and token (executor)
               -> handler

Every other call goes to Flower's application. Tested against it, answer by answer
(`tests/deployment/flower/test_direct_calls.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.responses import Response
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

# Threads for the calls' work, which uses the database one after the other (`link_state`).
THREADS = 4
# A call's work: from the request, whose message is in `state.protobuf_request`, to the answer.
Work: TypeAlias = Callable[[Request], Message]

# As Flower's `create_runtime_router` of a SuperLink.
_check_version = VersionDependency(
    component_name="SuperLink", connection_name="Caller <-> SuperLink Runtime API"
)


def _of_a_site(handler: Callable[[Any, LinkState], Message]) -> Work:
    """A node's call: Flower checks signature, time and node before the handler."""

    def work(request: Request) -> Message:
        authenticate_node(request)
        return handler(request.state.protobuf_request, get_linkstate(request))

    return work


def _of_the_executor(handler: Callable[[Any, LinkState, Any], Message]) -> Work:
    """A call about a task: Flower checks version and token before the handler."""

    def work(request: Request) -> Message:
        _check_version(request)
        state = get_linkstate(request)
        task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
        return handler(request.state.protobuf_request, state, task)

    return work


def _pull_messages(request: Any, state: LinkState) -> Message:
    return fleet_handlers.pull_messages(request=request, state=state, store=state.object_store)


def _confirm(request: Any, state: LinkState) -> Message:
    return fleet_handlers.confirm_message_received(
        request=request, state=state, store=state.object_store
    )


CALLS: Mapping[str, Work] = {
    "/v1/fleet/send-node-heartbeat": _of_a_site(fleet_handlers.send_node_heartbeat),
    "/v1/fleet/pull-messages": _of_a_site(_pull_messages),
    "/v1/fleet/pull-object": _of_a_site(fleet_handlers.pull_object),
    "/v1/fleet/confirm-message-received": _of_a_site(_confirm),
    "/v1/fleet/push-messages": _of_a_site(fleet_handlers.push_messages),
    "/v1/fleet/push-object": _of_a_site(fleet_handlers.push_object),
    "/v1/runtime/push-messages": _of_the_executor(runtime_handlers.push_messages),
    "/v1/runtime/push-object": _of_the_executor(runtime_handlers.push_object),
    "/v1/runtime/pull-messages": _of_the_executor(runtime_handlers.pull_messages),
    "/v1/runtime/pull-object": _of_the_executor(runtime_handlers.pull_object),
    "/v1/runtime/confirm-message-received": _of_the_executor(
        runtime_handlers.confirm_message_received
    ),
}


class DirectCalls:
    """Flower's application of a SuperLink, as an ASGI application.

    Args:
        app: Flower's, without plug-ins that log calls.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(THREADS, "call")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a call."""
        work = CALLS.get(scope["path"]) if scope["type"] == "http" else None
        if work is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request({**scope, "app": self._app}, receive)
        answer = await http_error_translator(request, partial(self._answer, work))
        await answer(scope, receive, send)

    async def _answer(self, work: Work, request: Request) -> Response:
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
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, work, request)
        return Response(answer.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)
