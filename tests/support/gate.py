"""A gate on loopback in front of a fake SuperLink, and the requests that nodes send to it."""

import base64
import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest

from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.gate import make_server
from cloister.deployment.coordinator.members import (
    approved,
    changing,
    invited,
    read_members,
    revoked,
)
from cloister.deployment.enrolment.node_key import public_pem, sign_as_node
from tests.support.https import FakeSuperLink, at_socket, served
from tests.support.papers import keys, request
from tests.support.ports import free_port

# A call whose answer the gate does not read, and a request of it.
CALL = "send-node-heartbeat"
NODE, OTHER_NODE, RUN, HUB = 7, 8, 5, 1
QUESTION, REPLY, PART, ASKED = "a" * 64, "b" * 64, "c" * 64, "d" * 64


def heartbeat(node: int = NODE) -> bytes:
    request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30)
    return bytes(request.SerializeToString())


BODY = heartbeat()


def make_folder(path: Path) -> ServerFolder:
    config = ServerConfig(
        name="hub",
        address=f"localhost:{free_port()}",
        listen=f"127.0.0.1:{free_port()}",
    )
    port = config.place[1]
    return ServerFolder.create(
        path / "hub", replace(config, address=f"localhost:{port}"), datetime.now(UTC)
    )


def join(folder: ServerFolder, site: str) -> None:
    with changing(folder.members) as change:
        members = invited(read_members(folder.members), site, datetime.now(UTC))
        change(approved(members, request(site, members[site].token), datetime.now(UTC)))


def revoke(folder: ServerFolder, site: str) -> None:
    with changing(folder.members) as change:
        change(revoked(read_members(folder.members), site))


def signed(site: str, by: str = "") -> dict[str, str]:
    """The headers that a site's node sends with each request."""
    now = datetime.now(UTC).isoformat()
    signature = sign_as_node(keys(by or site).node, now.encode())
    return {
        "flwr-public-key": base64.b64encode(public_pem(keys(site).node).encode()).decode(),
        "flwr-timestamp": now,
        "flwr-signature": base64.b64encode(signature).decode(),
    }


@dataclass
class Gate:
    """A gate that serves, and the SuperLink behind it."""

    folder: ServerFolder
    link: FakeSuperLink

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder.certificate))

    @property
    def port(self) -> int:
        return self.folder.config.place[1]

    def post(self, headers: dict[str, str], call: str = CALL, body: bytes = BODY) -> int:
        url = f"https://localhost:{self.port}/v1/fleet/{call}"
        return httpx.post(
            url, content=body, headers=headers, verify=self.context, trust_env=False, timeout=300
        ).status_code

    def say(self, said: Any, site: str = "ward") -> int:
        """A member's request; the code of its answer."""
        return self.post(signed(site), call_of(said), said.SerializeToString())

    @contextmanager
    def connection(self, source: str = "127.0.0.1") -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection(("127.0.0.1", self.port), 20, (source, 0)) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            yield secured

    def raw(self, text: bytes) -> bytes:
        """All that comes back before the connection ends; requests say that it shall."""
        with self.connection() as secured:
            return sent(secured, text)


def sent(secured: socket.socket, text: bytes) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        secured.sendall(text)
        while part := secured.recv(65536):
            answer += part
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def head(line: str, headers: dict[str, str] | list[tuple[str, str]]) -> bytes:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    lines = [line, "host: localhost", "connection: close", *(f"{n}: {v}" for n, v in pairs)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@contextmanager
def open_gate(path: Path) -> Iterator[Gate]:
    folder, link = make_folder(path), FakeSuperLink()
    join(folder, "ward")
    with behind(folder, link), served(make_server(folder)):
        yield Gate(folder, link)


@contextmanager
def behind(folder: ServerFolder, link: FakeSuperLink) -> Iterator[None]:
    """The SuperLink alone."""
    with at_socket(link, folder.superlink):
        yield


# Valid requests of nodes; tests replace a field by another node's.


def call_of(said: Any) -> str:
    """The path of a request."""
    return {
        ActivateNodeRequest: "activate-node",
        DeactivateNodeRequest: "deactivate-node",
        SendNodeHeartbeatRequest: "send-node-heartbeat",
        PullMessagesRequest: "pull-messages",
        PushMessagesRequest: "push-messages",
        GetRunRequest: "get-run",
        GetFabRequest: "get-fab",
        PushObjectRequest: "push-object",
        PullObjectRequest: "pull-object",
        ConfirmMessageReceivedRequest: "confirm-message-received",
    }[type(said)]


def activation(site: str = "ward") -> Any:
    return ActivateNodeRequest(public_key=public_pem(keys(site).node).encode())


def poll(node: int = NODE) -> Any:
    return PullMessagesRequest(node=Node(node_id=node))


def reply(
    node: int = NODE,
    source: int = NODE,
    to: int = HUB,
    run: int = RUN,
    question: str = QUESTION,
    kind: str = "train",
    message: str = REPLY,
    tree: str = "",
    objects: tuple[str, ...] = (PART,),
) -> Any:
    """A reply's announcement, as a SuperNode makes it."""
    now = datetime.now(UTC).timestamp()
    metadata = Metadata(
        run_id=run,
        message_id=message,
        src_node_id=source,
        dst_node_id=to,
        message_type=kind,
        reply_to_message_id=question,
        created_at=now,
        ttl=60,
    )
    children = [ObjectTree(object_id=part) for part in objects]
    return PushMessagesRequest(
        node=Node(node_id=node),
        messages_list=[Message(metadata=metadata)],
        message_object_trees=[ObjectTree(object_id=tree or message, children=children)],
        clientapp_runtime_list=[1.0],
    )


def item(
    kind: str = "ConfigRecord", parts: tuple[str, ...] = (), body: bytes = b"", size: int = 0
) -> bytes:
    """An object as Flower deflates it; its body is filled up to the size that is asked for."""
    for filler in range(max(size - len(body), 0) + 1):
        whole = body + b"x" * (max(size - len(body), 0) - filler)
        made = f"{kind} {','.join(parts)} {len(whole)}".encode() + b"\0" + whole
        if len(made) <= size:
            return made
    return made


def root(parts: tuple[str, ...] = (PART,), error: bool = False, **of_metadata: Any) -> bytes:
    """A reply's own object."""
    told: dict[str, Any] = {
        "run_id": RUN,
        "src_node_id": NODE,
        "dst_node_id": HUB,
        "message_type": "train",
        "reply_to_message_id": QUESTION,
        "created_at": 1.8e9,
        "ttl": 60.0,
    }
    message = Message(metadata=Metadata(**{**told, **of_metadata}))
    if error:
        message.error.code = 8
    return item("Message", parts, message.SerializeToString())


def part(node: int = NODE, run: int = RUN, object_id: str = PART, content: bytes = b"") -> Any:
    return PushObjectRequest(
        node=Node(node_id=node),
        run_id=run,
        object_id=object_id,
        object_content=content or item(),
        session_id="session",
    )


def fetch(node: int = NODE, run: int = RUN, object_id: str = ASKED) -> Any:
    return PullObjectRequest(node=Node(node_id=node), run_id=run, object_id=object_id)


def confirm(node: int = NODE, run: int = RUN, question: str = QUESTION) -> Any:
    return ConfirmMessageReceivedRequest(
        node=Node(node_id=node), run_id=run, message_object_id=question
    )


def run_of(node: int = NODE, run: int = RUN) -> Any:
    return GetRunRequest(node=Node(node_id=node), run_id=run)


def bundle_of(node: int = NODE, run: int = RUN) -> Any:
    return GetFabRequest(node=Node(node_id=node), run_id=run, hash_str="f" * 64)


def leave(node: int = NODE) -> Any:
    return DeactivateNodeRequest(node_id=node)


def activated(node: int = NODE) -> bytes:
    """The SuperLink's answer to an activation."""
    return bytes(ActivateNodeResponse(node_id=node).SerializeToString())


def question(
    node: int = NODE, run: int = RUN, message: str = QUESTION, ttl: float = 3600.0
) -> bytes:
    """The SuperLink's answer to a poll: one question."""
    now = datetime.now(UTC).timestamp()
    metadata = Metadata(
        run_id=run,
        message_id=message,
        src_node_id=HUB,
        dst_node_id=node,
        message_type="train",
        created_at=now,
        ttl=ttl,
    )
    tree = ObjectTree(object_id=message, children=[ObjectTree(object_id=ASKED)])
    pulled = PullMessagesResponse(
        messages_list=[Message(metadata=metadata)], message_object_trees=[tree]
    )
    return bytes(pulled.SerializeToString())


def ask(gate: Gate, site: str = "ward", node: int = NODE, **of_question: Any) -> None:
    """Has a site's node activated and asked a question."""
    gate.link.said["activate-node"] = activated(node)
    gate.link.said["pull-messages"] = question(node, **of_question)
    gate.link.said["push-messages"] = b""
    assert gate.say(activation(site), site) == 200
    assert gate.say(poll(node), site) == 200
