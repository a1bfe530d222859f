"""The short way gives the answers of Flower's application, refusals included."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from flwr.app import ConfigRecord, Message, RecordDict
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
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.main import create_app
from sqlalchemy import text
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from cloister.deployment.enrolment.node_key import public_pem
from cloister.deployment.flower.direct_calls import CALLS, EXECUTORS, SITES, DirectCalls
from cloister.deployment.flower.flower_tasks import PatientClient
from cloister.deployment.flower.grid import StudyGrid
from cloister.deployment.flower.link_state import in_turn
from cloister.deployment.flower.many_calls import LARGE, MANY, Parts
from cloister.deployment.flower.superlink import settings
from cloister.errors import UsageError
from tests.support.clock import Clock, TimedGrid
from tests.support.gate import signed
from tests.support.papers import keys
from tests.support.superlinks import message, node, run

# Alembic about Flower's own settings.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")

KIND = {"content-type": PROTOBUF_MEDIA_TYPE}


class RevokedNodes(BaseHTTPMiddleware):
    """A check that a later version might have."""


class Link:
    """One SuperLink's state, its application, and the short way into it."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "secret"
        secret.write_bytes(secrets.token_hex(32).encode())
        self.app: FastAPI = create_app(settings(secret, folder / "link.db"), SuperLinkLifespan)
        self.state = in_turn(self.app.state.linkstate_factory)
        self.direct = DirectCalls(self.app)
        self.run, self.token = run(self.state)
        self.node = node(self.state, public_pem(keys("ward").node).encode())
        self.other = node(self.state, public_pem(keys("clinic").node).encode())

    def stay(self) -> None:
        """Keeps nodes and task, which Flower gives up 60 s after their last sign of life."""
        with self.state.session() as session:
            session.execute(text("UPDATE node SET online_until = 3e10"))
            session.execute(text("UPDATE task SET active_until = '2999-01-01 00:00:00.000000'"))

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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Link:
    return Link(tmp_path_factory.mktemp("link"))


@pytest.fixture
def link(shared: Link) -> Link:
    shared.stay()
    return shared


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


@pytest.mark.parametrize("change", ["one more", "one less", "another order"])
def test_another_flower_is_refused_that_may_check_more(
    link: Link, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A layer that a later version adds for all calls would silently not apply to these."""
    layers = list(link.app.user_middleware)
    changed = {
        "one more": [Middleware(RevokedNodes), *layers],
        "one less": layers[:-1],
        "another order": layers[::-1],
    }[change]
    monkeypatch.setattr(link.app, "user_middleware", changed)
    with pytest.raises(UsageError, match="layers") as refused:
        DirectCalls(link.app)
    assert "flwr>=1.41,<1.42" in str(refused.value)
    assert ("RevokedNodes" in str(refused.value)) == (change == "one more")


def test_a_factory_that_keeps_a_state_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(secrets.token_hex(32).encode())
    app = create_app(settings(secret, tmp_path / "link.db"), SuperLinkLifespan)
    factory = app.state.linkstate_factory
    own = factory.state()
    monkeypatch.setattr(factory, "state", lambda: own)
    with pytest.raises(UsageError, match="a state of its own"):
        in_turn(factory)


def test_other_calls_go_to_flower_s_application(link: Link) -> None:
    assert link.ask(link.direct, "/health", {}, b"", "GET")[0] == 200
    assert link.ask(link.direct, "/v1/fleet/none", KIND, b"")[0] == 404


def many(*bodies: bytes) -> bytes:
    return Parts(bodies).SerializeToString()


def test_many_calls_have_the_answers_of_each(link: Link) -> None:
    call = "/v1/runtime/pull-object"
    headers, ids = shown(link, call, "ward"), ["a" * 64, "b" * 64]
    bodies = [
        PullObjectRequest(node=Node(node_id=1), run_id=link.run, object_id=one).SerializeToString()
        for one in ids
    ]
    code, _, content = link.ask(link.direct, MANY + call, headers, many(*bodies))
    found = Parts()
    found.ParseFromString(content)
    assert code == 200
    assert found.parts == [link.ask(link.app, call, headers, body)[2] for body in bodies]


@pytest.mark.parametrize("call", EXECUTORS)
@pytest.mark.parametrize("case", ["stranger", "unsigned", "of another type"])
def test_many_calls_are_refused_like_one(link: Link, call: str, case: str) -> None:
    headers = shown(link, call, "stranger" if case == "stranger" else "ward")
    if case == "unsigned":
        headers = dict(KIND)
    if case == "of another type":
        headers["content-type"] = "application/json"
    body = link.body(call, 1)
    found = link.ask(link.direct, MANY + call, headers, many(body, body))
    assert found == link.ask(link.app, call, headers, body)


def test_one_call_of_many_that_is_refused_refuses_them(link: Link) -> None:
    call = "/v1/runtime/pull-object"
    bodies = [link.body(call, who) for who in (1, link.node)]
    headers = shown(link, call, "ward")
    found = link.ask(link.direct, MANY + call, headers, many(*bodies))
    assert found[0] == link.ask(link.app, call, headers, bodies[1])[0] >= 400


@pytest.mark.parametrize("body", [b"\0\0\0\2a", b"\0\0", many(b"\xff"), many(*[b""] * 65)])
def test_what_is_not_many_calls_is_refused(link: Link, body: bytes) -> None:
    call = "/v1/runtime/pull-object"
    assert link.ask(link.direct, MANY + call, shown(link, call, "ward"), body)[0] == 400


@pytest.mark.parametrize("call", SITES)
def test_a_site_makes_one_call_at_a_time(link: Link, call: str) -> None:
    body = many(link.body(call, link.node))
    assert link.ask(link.direct, MANY + call, shown(link, call, "ward"), body)[0] == 404


class Into(httpx.BaseTransport):
    """Requests of a client that waits, to an application.

    Args:
        app: The application.
    """

    def __init__(self, app: DirectCalls) -> None:
        self._way = httpx.ASGITransport(app=app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def asked() -> httpx.Response:
            answer = await self._way.handle_async_request(request)
            content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)

        return asyncio.run(asked())


def test_questions_and_replies_travel_whole_and_large_ones_too(link: Link) -> None:
    """Through the executor's Grid, with Flower's functions in the place of a site."""
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    TaskIdentity.run_id = link.run
    grid = StudyGrid("localhost:1", insecure=True, token=link.token)
    grid._client = PatientClient(Path("/nowhere"), [RuntimeTokenHttpInterceptor(link.token)])
    grid._client._client = httpx.Client(transport=Into(link.direct))
    grid.set_run(link.state.get_run_info(run_ids=[link.run])[0])
    nodes = [link.node, link.other]
    said = [{"q": ConfigRecord({"to": str(who), "same": b"x" * 1000})} for who in nodes]
    ids = grid.push_messages(
        [Message(RecordDict(one), who, "train") for one, who in zip(said, nodes, strict=True)]
    )
    replies, found = {}, {}
    for who, said_to in zip(nodes, said, strict=True):
        there = link.state.get_message_ins(who, limit=None)
        (asked,) = [one for one in there if one.metadata.message_id in ids]
        contents = {
            part.object_id: link.state.get_object(link.run, part.object_id)
            for part in iterate_object_tree(
                link.state.object_store.get_object_tree(asked.metadata.message_id)
            )
        }
        question = inflate_object_from_contents(asked.metadata.message_id, contents)
        assert question.content == RecordDict(said_to)
        replies[who] = RecordDict({"a": ConfigRecord({"b": bytes([who % 256]) * LARGE})})
        question.metadata.__dict__["_message_id"] = asked.metadata.message_id
        reply = Message(replies[who], reply_to=question)
        reply.metadata.__dict__["_src_node_id"] = who
        reply.metadata.__dict__["_message_id"] = reply.object_id
        session = link.state.start_session(link.run)
        assert link.state.store_message_and_object_tree(reply, get_object_tree(reply), session)[0]
        found |= {come.metadata.src_node_id: come.content for come in grid.pull_messages(ids)}
        assert who not in found  # nothing of it has come
        link.state._checked.clear()  # nor is it an error when all questions are checked
        assert grid.pull_messages([asked.metadata.message_id]) == []
        for name, part in get_all_nested_objects(reply).items():
            assert link.state.store_object(link.run, session, name, part.deflate())
    last = grid.pull_messages([asked.metadata.message_id])
    found |= {come.metadata.src_node_id: come.content for come in last}
    assert found == replies
