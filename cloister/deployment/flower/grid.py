"""Flower's Grid over the SuperLink's Runtime API, for a task that this process has claimed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import cast

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from cloister.deployment.flower.flower_tasks import (
    SERVER_PATIENCE,
    FlowerTask,
    PatientClient,
    Runtime,
    connect,
    patient_invoker,
)
from cloister.deployment.flower.many_calls import grouped
from cloister.deployment.flower.replies_on_arrival import Arrivals
from cloister.errors import NetworkError

log = logging.getLogger(__name__)

# Messages of one call, which the SuperLink stores one after the other, about 40 ms of CPU time
# each. Our call waits 30 s for its answer: on a core shared by many, 100 messages took longer.
PUSHED_AT_ONCE = 16


class StudyGrid(HttpGrid):
    """Flower's Grid with three changes.

    A push that breaks off counts as not accepted. A missing or unreadable reply neither blocks the
    others nor ends the run (`Arrivals`). Objects travel many to a request (`many_calls`).
    """

    _arrivals: Arrivals | None = None
    # Called with the nodes whose questions the SuperLink may have stored.
    on_pushed: Callable[[list[int]], None] | None = None

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Pushes messages; returns an empty id for each that the SuperLink did not accept.

        Raises:
            NetworkError: The messages are larger than the SuperLink takes.
        """
        pushed = list(messages)
        ids: list[str] = []
        for start in range(0, len(pushed), PUSHED_AT_ONCE):
            ids += self._push_some(pushed[start : start + PUSHED_AT_ONCE])
        return ids

    def _push_some(self, pushed: list[Message]) -> list[str]:
        nodes = [int(message.metadata.dst_node_id) for message in pushed]
        try:
            ids = [message_id or "" for message_id in super().push_messages(pushed)]
        except ObjectPushError:  # a restarted SuperLink does not know the session
            log.warning("the SuperLink did not take %d messages", len(pushed))
            return [""] * len(pushed)
        finally:  # it may have stored some of them, whatever happened
            if self.on_pushed is not None:
                self.on_pushed(nodes)
        if len(ids) != len(pushed):
            raise NetworkError("the SuperLink accepts no messages of this size; see its log")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Returns the replies that have arrived, each once, valid or not.

        Raises:
            NetworkError: The SuperLink no longer knows the run.
        """
        client, run = self._runtime_client, cast(Run, self._run).run_id
        assert isinstance(client, PatientClient)
        if self._arrivals is None:
            self._arrivals = Arrivals(SERVER_PATIENCE, time.monotonic)
        # Asked for again, a question whose reply is still arriving would be an error.
        asked_for = set(message_ids) - self._arrivals.answered()
        if asked_for:
            pulled = client.PullMessages(PullAppMessagesRequest(message_ids=asked_for))
            self._arrivals.add(pulled.messages_list, pulled.message_object_trees)

        def asked(object_id: str) -> PullObjectRequest:
            return PullObjectRequest(node=self.node, run_id=run, object_id=object_id)

        missing = self._arrivals.missing()
        found = client.many("pull-object", [asked(name) for name in missing], PullObjectResponse)
        at_hand = dict(zip(missing, found, strict=False))  # large ones come one by one

        def pull(object_id: str) -> PullObjectResponse:
            ready = at_hand.pop(object_id, None)
            return client.look_for(asked(object_id)) if ready is None else ready

        taken = self._arrivals.take(pull)
        received = [
            ConfirmMessageReceivedRequest(node=self.node, run_id=run, message_object_id=message_id)
            for message_id, _ in taken
        ]
        client.many("confirm-message-received", received, ConfirmMessageReceivedResponse)
        return [message for _, message in taken]

    def _try_push_messages(self, run_id: int, messages: Iterable[Message]) -> list[str]:
        """Stores messages without their content, then the objects of all in few requests.

        Raises:
            ObjectPushError: The SuperLink did not take an object.
        """
        pushed = list(messages)
        client = self._runtime_client
        assert isinstance(client, PatientClient)
        stored = client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[
                    message_to_proto(remove_content_from_message(message)) for message in pushed
                ],
                message_object_trees=[get_object_tree(message) for message in pushed],
            )
        )
        objects: dict[str, InflatableObject] = {}
        for message in pushed:
            objects |= get_all_nested_objects(message)
        requests = (
            PushObjectRequest(
                node=self.node,
                run_id=run_id,
                object_id=object_id,
                object_content=objects[object_id].deflate(),
                session_id=stored.session_id,
            )
            for object_id in stored.objects_to_push
        )
        for group in grouped(requests):
            for request, answer in zip(
                group, client.many("push-object", group, PushObjectResponse), strict=True
            ):
                if not answer.stored:
                    raise ObjectPushError(request.object_id, run_id, stored.session_id)
        return list(stored.message_ids)


def grid_of(
    runtime: Runtime,
    task: FlowerTask,
    run: Run,
    on_pushed: Callable[[list[int]], None] | None = None,
) -> StudyGrid:
    """The Grid of a run; its calls raise NetworkError once the run is no longer ours.

    Args:
        runtime: The SuperLink's.
        task: The run's, claimed.
        run: The run.
        on_pushed: Called with the nodes whose questions the SuperLink may have stored.
    """
    grid = StudyGrid(str(runtime.socket), insecure=True, token=task.token)
    # Flower's own invoker interrupts the process if the SuperLink does not know the task.
    grid._retry_invoker = patient_invoker()
    grid._client = connect(runtime, task.token)
    grid._client.patience = SERVER_PATIENCE
    grid.set_run(run)
    grid.on_pushed = on_pushed
    return grid
