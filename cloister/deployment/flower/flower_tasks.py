"""Claims Flower's tasks in our own process, instead of `flower-superexec`.

A SuperNode or SuperLink in process isolation offers tasks on its Runtime API. A process with the
executor's secret claims one and keeps it by heartbeats. The app bundle of a task is dropped unread:
only installed code runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import httpx
from flwr.app import Context
from flwr.app import Message as FlowerMessage
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto, user_config_from_proto
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message
from google.protobuf.message import Message

from cloister.deployment.flower.many_calls import MANY, Parts, grouped
from cloister.deployment.flower.sockets import SocketClient
from cloister.errors import NetworkError

Answer = TypeVar("Answer", bound=Message)

log = logging.getLogger(__name__)

# Seconds between checks for a task's message, which a SuperNode stores only after the task.
POLL = 0.1
# Seconds without progress after which a message is given up. Its message never comes if the run has
# ended meanwhile; a piece of a message (5 MB) takes 40 s over 1 Mbit/s. The coordinator waits as
# long: where many sites answer at once, a reply's pieces wait for their turns at the gate.
SITE_PATIENCE, SERVER_PATIENCE = 60.0, 60.0
# Seconds for which a failed call is repeated before its task is given up: Flower takes a task away
# after 60 s without a heartbeat.
RETRY_SECONDS = 60.0
_GONE = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


@dataclass(frozen=True)
class Runtime:
    """Socket and secret of the Runtime API, which offers tasks.

    Attributes:
        socket: Path of the unix socket at which the Runtime API listens.
        secret: The executor's secret, byte for byte as in its file.
    """

    socket: Path
    secret: bytes


class RuntimeClient(SocketClient, RuntimeHttpClient):
    """The Runtime API at a socket."""


class PatientClient(RuntimeClient):
    """Waits for a message and its objects; Flower's own client gives up at once.

    Attributes:
        patience: Seconds without any object arriving after which the message is given up.
    """

    patience = SITE_PATIENCE
    _progress = 0.0

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802
        """The task's messages, once there are any."""
        self._progress = time.monotonic()
        while True:
            response = super().PullMessages(request)
            if response.messages_list or request.message_ids or self._is_still():
                return response
            time.sleep(POLL)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802
        """Pulls an object; waits until it is there.

        Raises:
            ObjectPullError: The object does not come.
        """
        while True:
            response = super().PullObject(request)
            if response.object_available:
                self._progress = time.monotonic()
                return response
            if self._is_still() or not response.object_found:
                raise ObjectPullError(request.object_id, "it does not arrive")
            time.sleep(POLL)

    def look_for(self, request: PullObjectRequest) -> PullObjectResponse:
        """Pulls an object if it is there, without waiting."""
        return super().PullObject(request)

    def many(self, name: str, requests: Sequence[Message], kind: type[Answer]) -> list[Answer]:
        """Makes several calls of one kind, as few requests as may be; a SuperLink's only.

        Args:
            name: The calls' name in the Runtime API's paths.
            requests: Theirs.
            kind: The type of their answers.

        Returns:
            The first answers, in the requests' order; fewer than requests where they are large.
        """
        answers: list[Answer] = []
        for group in grouped(requests):
            found = self._unary_unary(
                path=f"{MANY}/v1/runtime/{name}",
                rpc_method=name,
                request=cast(Message, Parts(part.SerializeToString() for part in group)),
                response_type=cast(type[Message], Parts),
            )
            parts = cast(Parts, found).parts
            answers += [kind.FromString(part) for part in parts]
            if len(parts) < len(group):
                break
        return answers

    def _is_still(self) -> bool:
        return time.monotonic() - self._progress > self.patience


@dataclass
class FlowerTask:
    """A claimed task, kept by heartbeats until it is finished.

    Attributes:
        token: Authenticates every call about the task.
        client: The client for those calls.
        lost: Set when Flower gave the task up: its result will not be accepted.
    """

    token: str
    client: PatientClient
    lost: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._heartbeat = HeartbeatSender(self._beat)
        self._heartbeat.start()

    def message(self) -> tuple[FlowerMessage, Context, bytes]:
        """The message of a client's task, and its bundle, which is only hashed.

        Raises:
            NetworkError: The message does not come, probably because its run has ended.
        """
        try:
            message, context, _, bundle = pull_task_input(self.client)
        except (ObjectPullError, RuntimeError) as error:
            raise NetworkError("a task whose message never arrived") from error
        return message, context, bundle.content

    def run(self) -> tuple[Run, Mapping[str, object]]:
        """The run of a server's task and its configuration; its bundle is dropped unread."""
        response = self.client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = response.task_id
        TaskIdentity.run_id = response.run.run_id
        TaskIdentity.node_id = response.context.node_id
        config = user_config_from_proto(response.run.override_config)
        return run_from_proto(response.run), dict(config)

    def reply(self, message: FlowerMessage, context: Context) -> None:
        """Sends a client task's reply."""
        push_message(self.client, message, context)

    def finish(self, succeeded: bool) -> None:
        """Ends the task, without an error's text."""
        status = SubStatus.COMPLETED if succeeded else SubStatus.FAILED
        try:
            self.client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        except (httpx.HTTPError, NetworkError) as error:
            log.warning("the task's end could not be reported: %s", type(error).__name__)
        finally:
            self.close()

    def close(self) -> None:
        """Gives the task up without a message."""
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        self.client.close()

    def _beat(self) -> bool:
        try:
            alive = self.client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except NetworkError:
            alive = False
        except httpx.HTTPError:
            return False
        if not alive:
            self.lost.set()
        return True


class Executor:
    """Claims tasks of one kind, one at a time.

    Args:
        runtime: The Runtime API.
        kind: A site's tasks or the coordinator's.
    """

    def __init__(self, runtime: Runtime, kind: TaskType) -> None:
        self._runtime = runtime
        self._kind = kind
        self._client = RuntimeClient(
            runtime.socket,
            [
                RuntimeVersionHttpInterceptor("SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=runtime.secret,
                    protected_methods={"/flwr.proto.Runtime/AcquireTask"},
                ),
            ],
        )

    def claim(self) -> FlowerTask | None:
        """Claims a waiting task; None if there is none.

        Raises:
            NetworkError: The Runtime API refuses the secret.
        """
        request = AcquireTaskRequest(supported_task_types=[self._kind])
        try:
            response = self._client.AcquireTask(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in _GONE:
                raise NetworkError(
                    f"{self._runtime.socket}: does not take this executor's secret; another "
                    "process listens there"
                ) from error
            return None
        except httpx.HTTPError:
            return None
        if not response.HasField("task"):
            return None
        return FlowerTask(response.token, connect(self._runtime, response.token))

    def close(self) -> None:
        """Closes the connection; claimed tasks have their own."""
        self._client.close()


def connect(runtime: Runtime, token: str) -> PatientClient:
    """Returns a client for the calls of one task."""
    return PatientClient(
        runtime.socket,
        [RuntimeVersionHttpInterceptor("SuperExec"), RuntimeTokenHttpInterceptor(token)],
        patient_invoker(),
    )


def patient_invoker() -> RetryInvoker:
    """Retries a call while the other side is down; Flower's own invoker would end this process.

    Calls raise NetworkError if the other side no longer knows the task.
    """

    def give_up(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            if error.response.status_code in _GONE:
                raise NetworkError("Flower has abandoned this task") from error
            return error.response.status_code not in (502, 503, 504)
        return False

    return RetryInvoker(
        lambda: exponential(base_delay=0.1, max_delay=5),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=RETRY_SECONDS,
        should_giveup=give_up,
    )


CLIENT_TASK = TaskType.CLIENT_APP
SERVER_TASK = TaskType.SERVER_APP
