"""Flower's Grid over the SuperLink's Runtime API, for a task that this process has claimed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import cast

from flwr.app import Message
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
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
from cloister.deployment.flower.replies_on_arrival import Arrivals
from cloister.errors import NetworkError

log = logging.getLogger(__name__)

# Messages of one call, which the SuperLink stores one after the other, about 40 ms of CPU time
# each. Our call waits 30 s for its answer: on a core shared by many, 100 messages took longer.
PUSHED_AT_ONCE = 16


class StudyGrid(HttpGrid):
    """Flower's Grid with two changes.

    A push that breaks off counts as not accepted. A missing or unreadable reply neither blocks the
    others nor ends the run (`Arrivals`).
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
        pulled = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        self._arrivals.add(pulled.messages_list, pulled.message_object_trees)

        def pull(object_id: str) -> PullObjectResponse:
            request = PullObjectRequest(node=self.node, run_id=run, object_id=object_id)
            return client.look_for(request)

        taken = []
        for message_id, message in self._arrivals.take(pull):
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self.node, run_id=run, message_object_id=message_id
                )
            )
            taken.append(message)
        return taken


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
