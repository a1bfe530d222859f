"""The short way gives the answers of Flower's application, refusals included."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.main import create_app

from cloister.deployment.enrolment.node_key import public_pem
from cloister.deployment.flower.direct_calls import CALLS, DirectCalls
from cloister.deployment.flower.link_state import in_turn
from cloister.deployment.flower.superlink import settings
from tests.support.gate import signed
from tests.support.papers import keys
from tests.support.superlinks import message, node, run

# Alembic about Flower's own settings.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")

KIND = {"content-type": PROTOBUF_MEDIA_TYPE}


class Link:
    """One SuperLink's state, its application, and the short way into it."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "secret"
        secret.write_bytes(secrets.token_hex(32).encode())
        self.app: FastAPI = create_app(settings(secret, folder / "link.db"), SuperLinkLifespan)
        state = in_turn(self.app.state.linkstate_factory)
        self.direct = DirectCalls(self.app)
        self.run, self.token = run(state)
        self.node = node(state, public_pem(keys("ward").node).encode())
        self.other = node(state, public_pem(keys("clinic").node).encode())

    def body(self, call: str, who: int) -> bytes:
        """A request of a call; it changes nothing that a second one would notice."""
        asks, part = Node(node_id=who), "a" * 64
        hub = SUPERLINK_NODE_ID
        reply = message_to_proto(message(self.run, who, hub, answers=part))
        question = message_to_proto(message(self.run, hub, self.node))
        made: Mapping[str, object] = {
            "send-node-heartbeat": SendNodeHeartbeatRequest(node=asks, heartbeat_interval=30),
            "pull-object": PullObjectRequest(node=asks, run_id=self.run, object_id=part),
            "push-object": PushObjectRequest(node=asks, run_id=self.run, object_id=part),
            "confirm-message-received": ConfirmMessageReceivedRequest(
                node=asks, run_id=self.run, message_object_id=part
            ),
            "pull-messages": PullMessagesRequest(node=asks),
            "push-messages": PushMessagesRequest(
                node=asks,
                messages_list=[reply],
                message_object_trees=[ObjectTree(object_id=reply.metadata.message_id)],
            ),
            "/v1/runtime/pull-messages": PullAppMessagesRequest(),
            "/v1/runtime/push-messages": PushAppMessagesRequest(
                messages_list=[question],
                message_object_trees=[ObjectTree(object_id=question.metadata.message_id)],
            ),
        }
        return made.get(call, made[call.rpartition("/")[2]]).SerializeToString()  # type: ignore[attr-defined,no-any-return]

    def ask(
        self, way: object, call: str, headers: Mapping[str, str], body: bytes, method: str = "POST"
    ) -> tuple[int, str, bytes]:
        """An answer's code, type and bytes."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=way)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://link") as client:
                return await client.request(method, call, content=body, headers=dict(headers))

        answer = asyncio.run(asked())
        return answer.status_code, answer.headers.get("content-type", ""), answer.content


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Link:
    return Link(tmp_path_factory.mktemp("link"))


def shown(link: Link, call: str, who: str) -> dict[str, str]:
    """The headers with which somebody calls."""
    if "/runtime/" in call:
        token = link.token if who == "ward" else "another"
        return {**KIND, "flwr-task-token": token}
    return {**KIND, **signed("ward" if who == "ward" else "stranger")}


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_flower_s(link: Link, call: str) -> None:
    who = link.node if "/fleet/" in call else 1
    headers, body = shown(link, call, "ward"), link.body(call, who)
    direct = link.ask(link.direct, call, headers, body)
    flower = link.ask(link.app, call, headers, body)
    if call.endswith("push-messages"):  # a session's id is drawn
        direct, flower = ((*one[:2], b"") for one in (direct, flower))
    assert direct == flower
    assert direct[0] == 200


REFUSED = ["stranger", "unsigned", "another's node", "not a request", "of another type", "GET"]
# The executor's other calls name no node.
CASES = [
    (call, case)
    for call in CALLS
    for case in REFUSED
    if case != "another's node"
    or "/fleet/" in call
    or call.endswith(("pull-object", "push-object"))
]


@pytest.mark.parametrize(("call", "case"), CASES)
def test_a_refusal_is_flower_s(link: Link, call: str, case: str) -> None:
    own = link.node if "/fleet/" in call else 1
    who = link.other if case == "another's node" else own
    headers = shown(link, call, "stranger" if case == "stranger" else "ward")
    if case == "unsigned":
        headers = dict(KIND)
    if case == "of another type":
        headers["content-type"] = "application/json"
    body = b"\xff" if case == "not a request" else link.body(call, who)
    method = "GET" if case == "GET" else "POST"
    direct = link.ask(link.direct, call, headers, body, method)
    assert direct == link.ask(link.app, call, headers, body, method)
    assert 400 <= direct[0] < 500


def test_an_old_signature_is_refused(link: Link) -> None:
    """Its time is part of Flower's check."""
    call = "/v1/fleet/pull-messages"
    headers = {**KIND, **signed("ward"), "flwr-timestamp": "2026-01-01T00:00:00+00:00"}
    body = link.body(call, link.node)
    assert link.ask(link.direct, call, headers, body)[0] == 401


def test_a_caller_of_another_version_is_refused(link: Link) -> None:
    call = "/v1/runtime/pull-messages"
    headers = {
        **shown(link, call, "ward"),
        "flwr-package-name": "flwr",
        "flwr-package-version": "1.2.0",
        "flwr-component-name": "SuperExec",
    }
    direct = link.ask(link.direct, call, headers, link.body(call, 1))
    assert direct == link.ask(link.app, call, headers, link.body(call, 1))
    assert direct[0] >= 400


def test_other_calls_go_to_flower_s_application(link: Link) -> None:
    assert link.ask(link.direct, "/health", {}, b"", "GET")[0] == 200
    assert link.ask(link.direct, "/v1/fleet/none", KIND, b"")[0] == 404
